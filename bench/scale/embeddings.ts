/** An OpenAI-compatible embeddings server in a process of its own, for clients that take base64; sends its port when it listens. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate as breathe } from 'node:timers/promises';
import { vectorOf } from './topics.ts';

const server = createServer(async (request, response) => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const { input } = JSON.parse(Buffer.concat(chunks).toString()) as { input: string[] };
  const data: string[] = [];
  for (const [index, text] of input.entries()) {
    const vector = Buffer.from(vectorOf(text).buffer).toString('base64');
    data.push(`{"index":${index},"embedding":"${vector}"}`);
    // A query does not wait for batches: servers of models work on many requests at once.
    if (index % 4 === 3) await breathe();
  }
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(`{"data":[${data.join(',')}]}`);
});
server.keepAliveTimeout = 60_000;
server.listen(0, '127.0.0.1', () => {
  process.send!({ value: (server.address() as AddressInfo).port });
});
process.on('disconnect', () => process.exit(0));
