/** An OpenAI-compatible embeddings server in a process of its own; sends its port when it listens. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate as breathe } from 'node:timers/promises';
import { vectorOf } from './topics.ts';

/**
 * Every number of four digits from -1 to 1, each with a comma and in as many bytes: writing them anew would cost more than
 * all the rest of this server, whose place is on another machine.
 */
const width = 8;
const written = Buffer.from(
  Array.from({ length: 20_001 }, (_, i) => `${String((i - 10_000) / 10_000).padStart(width - 1)},`).join(''),
);

function inFourDigits(vector: Float32Array): string {
  const text = Buffer.allocUnsafe(vector.length * width);
  for (let i = 0, at = 0; i < vector.length; i++) {
    const from = (Math.round(vector[i]! * 10_000) + 10_000) * width;
    for (let j = 0; j < width; j++) text[at++] = written[from + j]!;
  }
  return text.toString('latin1', 0, text.length - 1);
}

const server = createServer(async (request, response) => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const { input } = JSON.parse(Buffer.concat(chunks).toString()) as { input: string[] };
  const data: string[] = [];
  for (const [index, text] of input.entries()) {
    data.push(`{"index":${index},"embedding":[${inFourDigits(vectorOf(text))}]}`);
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
