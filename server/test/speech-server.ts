import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface SpeechRequest {
  model: string;
  voice: string;
  input: string;
  response_format: string;
  headers: IncomingMessage['headers'];
}

/** Answers one request for speech: writes bytes, breaks off, or does nothing. */
export type SpeechScript = (response: ServerResponse, request: SpeechRequest) => Promise<void> | void;

/** Bytes that stand for speech. */
export const speech = (text: string): Buffer => Buffer.from(`ID3 speech of: ${text}`);

export const speakWell: SpeechScript = (response, { input }) => {
  response.writeHead(200, { 'content-type': 'audio/mpeg' }).end(speech(input));
};

/** A server on loopback that speaks like OpenAI's, records what it is asked and answers as it is told. */
export async function startSpeechServer() {
  const requests: SpeechRequest[] = [];
  let script = speakWell;
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = { ...JSON.parse(Buffer.concat(chunks).toString()), headers: request.headers };
    requests.push(body);
    await script(response, body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    requests,
    answerWith: (next: SpeechScript) => {
      script = next;
    },
    close: () => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
