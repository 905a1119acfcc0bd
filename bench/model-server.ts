/**
 * A language model that says the time: an OpenAI-compatible chat server, in a process of its own, whose every token is
 * the monotonic clock of the machine (ns) at the moment it was written. Floor and subject are asked the same.
 */
import { createServer } from 'node:http';

const intervalMs = Number(process.env.TOKEN_INTERVAL_MS ?? 50);
const thinkMs = Number(process.env.THINK_MS ?? 20);

const event = (delta: object, finish: string | null) =>
  `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'clock', choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;

const server = createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  const tokens = Number(/tokens=(\d+)/.exec(body)?.[1] ?? 20);
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.flushHeaders();
  let said = 0;
  const say = () => {
    if (response.destroyed) return;
    if (said++ === tokens) {
      response.end(`${event({}, 'stop')}data: [DONE]\n\n`);
      return;
    }
    response.write(event({ role: 'assistant', content: `${process.hrtime.bigint()} ` }, null));
    setTimeout(say, intervalMs);
  };
  setTimeout(say, thinkMs);
});
process.on('SIGTERM', () => process.exit(0));
server.listen(Number(process.env.PORT), '127.0.0.1', () => process.send!({ value: 'ready' }));
