import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface RerankRequest {
  model: string;
  query: string;
  documents: string[];
  top_n: number;
  headers: IncomingMessage['headers'];
}

/** How a server fails on command. */
export type RerankTrouble =
  | { kind: 'none' }
  | { kind: 'status'; status: number }
  /** Takes the request and never answers. */
  | { kind: 'silent' }
  /** Breaks off in the middle of its answer. */
  | { kind: 'cut' }
  | { kind: 'garbage'; body: string };

/** A reranker on loopback, as Cohere and Jina have it, that finds relevant what it is told to and fails as it is told. */
export async function startRerankServer(relevanceOf: (text: string, query: string) => number) {
  const requests: RerankRequest[] = [];
  let trouble: RerankTrouble = { kind: 'none' };
  const answer = (request: RerankRequest, response: ServerResponse) => {
    if (trouble.kind === 'silent') return;
    response.writeHead(trouble.kind === 'status' ? trouble.status : 200, {
      'content-type': 'application/json',
    });
    if (trouble.kind === 'garbage') return void response.end(trouble.body);
    const results = request.documents
      .map((text, index) => ({ index, relevance_score: relevanceOf(text, request.query) }))
      .sort((a, b) => b.relevance_score - a.relevance_score);
    const body = JSON.stringify({ results });
    if (trouble.kind !== 'cut') return void response.end(body);
    response.write(body.slice(0, body.length / 2));
    setImmediate(() => response.destroy());
  };
  const server = createServer(async (incoming, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk);
    if (incoming.method !== 'POST' || incoming.url !== '/v1/rerank') return response.writeHead(404).end();
    const request: RerankRequest = {
      ...JSON.parse(Buffer.concat(chunks).toString()),
      headers: incoming.headers,
    };
    requests.push(request);
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    requests,
    fail: (next: RerankTrouble) => {
      trouble = next;
    },
    close: () => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

export type RerankServer = Awaited<ReturnType<typeof startRerankServer>>;
