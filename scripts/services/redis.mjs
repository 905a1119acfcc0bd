import { existsSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { asService, freePort } from './account.mjs';
import { ServicesError } from './obtain.mjs';

const CONNECT_TIMEOUT_MS = 2000;

/** Starts Redis in memory only; true when it was not running. */
export async function startRedis(state, log) {
  if (await redisRuns(state)) return false;
  state.redis.port = await freePort(state.redis.port);
  const { server, port } = state.redis;
  const pidFile = redisPidFile(state);
  rmSync(pidFile, { force: true });
  const settings = ['--port', String(port), '--bind', '127.0.0.1', '--dir', state.data, '--daemonize', 'yes'];
  const memoryOnly = ['--save', '', '--appendonly', 'no'];
  asService(state, state.redis.libraries, server, [
    ...settings,
    ...memoryOnly,
    '--pidfile',
    pidFile,
    '--logfile',
    join(state.data, 'redis.log'),
  ]);
  for (let tries = 0; !(await redisRuns(state)); tries += 1) {
    if (tries > 250) throw new ServicesError(`Redis did not start: see ${join(state.data, 'redis.log')}`);
    await sleep(20);
  }
  log(`Redis listens on 127.0.0.1:${port}`);
  return true;
}

const redisPidFile = (state) => join(state.data, 'redis.pid');

/** Asks the server for its process id, so that another program on a port that was ours is never taken for ours. */
export async function redisRuns(state) {
  const pidFile = redisPidFile(state);
  if (!existsSync(pidFile)) return false;
  const answer = await redis(state.redis.port, 'INFO server');
  return /^process_id:(\d+)/m.exec(answer)?.[1] === readFileSync(pidFile, 'utf8').trim();
}

/** One inline command; the answer as text, '' when nobody answers. */
function redis(port, command) {
  return new Promise((done) => {
    const socket = connect({ host: '127.0.0.1', port, timeout: CONNECT_TIMEOUT_MS });
    let answer = '';
    socket.on('connect', () => socket.write(`${command}\r\nQUIT\r\n`));
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('timeout', () => socket.destroy());
    socket.on('error', () => done(''));
    socket.on('close', () => done(answer));
  });
}

export async function stopRedis(state) {
  if (!(await redisRuns(state))) return;
  await redis(state.redis.port, 'SHUTDOWN NOSAVE');
  while (await redisRuns(state)) await sleep(20);
}
