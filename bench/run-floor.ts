/** What a run is compared with, in a process of its own: bare Fastify that hands on the bytes of the same model. */
import { fastify } from 'fastify';
import { Agent, request } from 'undici';

const agent = new Agent({ connections: 400 });
const server = fastify();
server.post('/v1/run', async ({ body }, reply) => {
  const answer = await request(`${process.env.LLM_BASE_URL}/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    dispatcher: agent,
  });
  reply.hijack();
  reply.raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  answer.body.pipe(reply.raw);
});
server.get('/healthz', async () => ({ status: 'ok' }));
process.on('SIGTERM', () => process.exit(0));
await server.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
process.send!({ value: 'ready' });
