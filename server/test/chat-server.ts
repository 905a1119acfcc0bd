import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ChatRequest {
  model: string;
  messages: { role: string; content: string }[];
  stream_options?: { include_usage?: boolean };
  headers: IncomingMessage['headers'];
}

/** Answers one chat request: writes pieces, may wait, break off, or do nothing. */
export type ChatScript = (
  say: (text: string) => void,
  response: ServerResponse,
  request: ChatRequest,
) => Promise<void> | void;

/** An OpenAI-compatible chat server on loopback that records what it is asked and answers as it is told. */
export async function startChatServer() {
  const requests: ChatRequest[] = [];
  let closedEarly = 0;
  let script: ChatScript = () => {};
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body: ChatRequest = { ...JSON.parse(Buffer.concat(chunks).toString()), headers: request.headers };
    requests.push(body);
    response.on('close', () => {
      if (!response.writableFinished) closedEarly += 1;
    });
    const event = (delta: object, finish: string | null) =>
      response.write(
        `data: ${JSON.stringify({ id: 'c1', object: 'chat.completion.chunk', created: 1, model: body.model, choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`,
      );
    const say = (text: string) => {
      if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' });
      event({ role: 'assistant', content: text }, null);
    };
    await script(say, response, body);
    if (response.writableEnded || response.destroyed || !response.headersSent) return;
    event({}, 'stop');
    if (body.stream_options?.include_usage)
      response.write(
        `data: ${JSON.stringify({ id: 'c1', object: 'chat.completion.chunk', created: 1, model: body.model, choices: [], usage: { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 } })}\n\n`,
      );
    response.end('data: [DONE]\n\n');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/v1`,
    requests,
    /** How many answers the caller did not wait for. */
    closedEarly: () => closedEarly,
    answerWith: (next: ChatScript) => {
      script = next;
    },
    close: () => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
