import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { run, ServicesError } from './obtain.mjs';

/** PostgreSQL refuses to run as root: root's services run as the postgres account, or as nobody. */
export function serviceAccount() {
  if (process.getuid() !== 0) return {};
  const accounts = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  const account =
    accounts.find(([name]) => name === 'postgres') ?? accounts.find(([name]) => name === 'nobody');
  if (account === undefined)
    throw new ServicesError('root needs an account named postgres or nobody to run PostgreSQL as');
  return { uid: Number(account[2]), gid: Number(account[3]) };
}

/** Where the service account may keep data: in `dir`, or elsewhere when a folder above it is closed to that account. */
export function dataFolder(dir, account) {
  const inside = join(dir, 'data');
  const elsewhere = join('/var/lib/manushya', createHash('sha256').update(dir).digest('hex').slice(0, 12));
  for (const data of account.uid === undefined ? [inside] : [inside, elsewhere]) {
    rmSync(data, { recursive: true, force: true });
    mkdirSync(data, { recursive: true });
    if (account.uid === undefined) return data;
    run('chown', [`${account.uid}:${account.gid}`, data]);
    try {
      run('test', ['-w', data], { ...account, cwd: '/' });
      return data;
    } catch {
      rmSync(data, { recursive: true, force: true });
    }
  }
  throw new ServicesError(`the account that runs PostgreSQL can write neither ${inside} nor ${elsewhere}`);
}

/** Runs a program as the service account and returns its output; `libraries` is its LD_LIBRARY_PATH or ''. */
export function asService(state, libraries, program, args, { env = {}, ...options } = {}) {
  return run(program, args, {
    ...state.account,
    cwd: state.data,
    env: {
      PATH: process.env.PATH,
      HOME: state.data,
      TZ: 'UTC',
      ...(libraries && { LD_LIBRARY_PATH: libraries }),
      ...env,
    },
    ...options,
  });
}

/** `wanted` when it is still free, so that connection strings outlive a restart; else any. */
export function freePort(wanted) {
  return new Promise((done, failed) => {
    const server = createServer();
    server.once('error', (error) => (wanted === 0 ? failed(error) : freePort(0).then(done, failed)));
    server.listen(wanted, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}
