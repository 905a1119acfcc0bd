import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface EmbeddingRequest {
  model: string;
  input: string[];
  encoding_format?: string;
  at: number;
  headers: IncomingMessage['headers'];
}

/** How a server fails on command. */
export type Trouble =
  | { kind: 'none' }
  /** Answers with a status, for all requests or only those that hold such a text. */
  | { kind: 'status'; status: number; retryAfter?: string; times?: number; texts?: RegExp; says?: string }
  | { kind: 'slow'; ms: number }
  | { kind: 'dimensions'; dimensions: number }
  | { kind: 'garbage'; body: string }
  /** Sends half of its answer and then nothing more. */
  | { kind: 'hang' }
  | { kind: 'cut' };

/** Words that mean the same to the model: it is near what no word says. */
const meanings = [
  ['retirement', 'pension', 'annuity'],
  ['dog', 'puppy', 'hound'],
  ['car', 'automobile', 'vehicle'],
  ['doctor', 'physician', 'medic'],
];

/** A vector that knows the meanings above, the same for the same text and model. */
export function meaningOf(text: string, dimensions: number, salt = ''): number[] {
  const vector = new Array<number>(dimensions).fill(0);
  for (const word of text.toLowerCase().match(/\p{L}+|\p{N}+/gu) ?? ['']) {
    const concept = meanings.find((words) => words.includes(word))?.[0] ?? word;
    let state = 2166136261;
    for (const char of salt + concept) state = Math.imul(state ^ char.charCodeAt(0), 16777619);
    for (let i = 0; i < dimensions; i++) {
      state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
      vector[i]! += ((state >>> 8) / 2 ** 24 - 0.5) * (concept === word ? 1 : 2);
    }
  }
  return vector;
}

/** An OpenAI-compatible embeddings server on loopback that records what it is asked and fails as it is told. */
export async function startEmbeddingServer(
  options: {
    dimensions?: number;
    port?: number;
    formats?: ('float' | 'base64')[];
    unknownFormat?: number;
  } = {},
) {
  const { dimensions = 32, port = 0, formats = ['float', 'base64'], unknownFormat = 400 } = options;
  const requests: EmbeddingRequest[] = [];
  let trouble: Trouble = { kind: 'none' };
  let vectorOf: typeof meaningOf = meaningOf;
  const held: ServerResponse[] = [];

  const answer = (request: EmbeddingRequest, response: ServerResponse) => {
    const size = trouble.kind === 'dimensions' ? trouble.dimensions : dimensions;
    const inFormat = (vector: number[]) =>
      request.encoding_format === 'base64'
        ? Buffer.from(Float32Array.from(vector).buffer).toString('base64')
        : vector;
    const data = request.input.map((text, index) => ({
      object: 'embedding',
      index,
      embedding: inFormat(vectorOf(text, size, request.model)),
    }));
    response.writeHead(200, { 'content-type': 'application/json' });
    const body = JSON.stringify({ object: 'list', data, model: request.model });
    if (trouble.kind === 'hang' || trouble.kind === 'cut') {
      response.write(body.slice(0, body.length / 2));
      if (trouble.kind === 'cut') setImmediate(() => response.destroy());
      else held.push(response);
    } else response.end(body);
  };

  const server = createServer(async (incoming, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString());
    const request: EmbeddingRequest = { ...body, at: performance.now(), headers: incoming.headers };
    requests.push(request);
    if (!formats.includes((request.encoding_format ?? 'float') as 'float')) {
      response.writeHead(unknownFormat, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ error: { message: 'that encoding is not supported' } }));
      return;
    }
    if (trouble.kind === 'status') {
      const { status, retryAfter, texts, says = 'no' } = trouble;
      if (!texts || request.input.some((text) => texts.test(text))) {
        if (trouble.times !== undefined && --trouble.times <= 0) trouble = { kind: 'none' };
        response.writeHead(status, retryAfter === undefined ? {} : { 'retry-after': retryAfter });
        return response.end(JSON.stringify({ error: { message: says } }));
      }
    }
    if (trouble.kind === 'garbage') return response.end(trouble.body);
    if (trouble.kind === 'slow') setTimeout(() => answer(request, response), trouble.ms);
    else answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const address = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${address.port}/v1`,
    port: address.port,
    requests,
    /** All texts asked for, queries included. */
    texts: () => requests.flatMap(({ input }) => input),
    fail: (next: Trouble) => {
      trouble = next;
      for (const response of held.splice(0)) response.destroy();
    },
    /** From now on vectors are made another way. */
    answerWith: (other: typeof meaningOf) => {
      vectorOf = other;
    },
    close: () => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

export type EmbeddingServer = Awaited<ReturnType<typeof startEmbeddingServer>>;
