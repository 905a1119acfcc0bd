import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface GeminiRequest {
  path: string;
  headers: IncomingMessage['headers'];
  contents: { role: string; parts: { text: string }[] }[];
  systemInstruction?: { parts: { text: string }[] };
}

/** Answers one request: says pieces, may wait, break off, or do nothing. */
export type GeminiScript = (
  say: (text: string) => void,
  response: ServerResponse,
  request: GeminiRequest,
) => Promise<void> | void;

/** A server on loopback that speaks Gemini's streaming format, and hands out the tokens it takes. */
export async function startGeminiServer() {
  const requests: GeminiRequest[] = [];
  let script: GeminiScript = () => {};
  let tokenStatus = 200;
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    if (request.url === '/token') {
      const answer =
        tokenStatus === 200
          ? {
              access_token: 'google-token',
              issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
              token_type: 'Bearer',
              expires_in: 3600,
            }
          : { error: 'invalid_grant', error_description: 'inner secret' };
      response.writeHead(tokenStatus, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
      return;
    }
    const asked: GeminiRequest = { ...JSON.parse(text), path: request.url, headers: request.headers };
    requests.push(asked);
    const event = (candidate: object, more: object = {}) => {
      if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(
        `data: ${JSON.stringify({ candidates: [candidate], modelVersion: 'gemini-test', ...more })}\r\n\r\n`,
      );
    };
    const say = (piece: string) => event({ content: { role: 'model', parts: [{ text: piece }] } });
    await script(say, response, asked);
    if (response.writableEnded || response.destroyed || !response.headersSent) return;
    event(
      { content: { role: 'model', parts: [{ text: '' }] }, finishReason: 'STOP' },
      { usageMetadata: { promptTokenCount: 21, candidatesTokenCount: 9, totalTokenCount: 30 } },
    );
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    answerWith: (next: GeminiScript) => {
      script = next;
    },
    answerTokensWith: (status: number) => {
      tokenStatus = status;
    },
    close: () => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
