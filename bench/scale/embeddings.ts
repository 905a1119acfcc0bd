/** An OpenAI-compatible embeddings server in a process of its own; sends its port when it listens. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { vectorOf } from './topics.ts';

const server = createServer(async (request, response) => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const { input } = JSON.parse(Buffer.concat(chunks).toString()) as { input: string[] };
  const data = input.map(
    (text, index) => `{"index":${index},"embedding":[${vectorOf(text).map((value) => value)}]}`,
  );
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(`{"data":[${data.join(',')}]}`);
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => {
  process.send!({ value: (server.address() as AddressInfo).port });
});
process.on('disconnect', () => process.exit(0));
