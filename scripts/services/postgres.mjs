import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { asService, freePort } from './account.mjs';
import { ServicesError } from './obtain.mjs';

export const OWNER = 'manushya_owner';
export const DATABASE = 'manushya';

/** Creates the cluster, with a superuser named postgres. */
export function initPostgres(state, log) {
  log('Creating a PostgreSQL database cluster ...');
  const { bin, libraries, superuserPassword } = state.postgres;
  const passwordFile = join(state.data, 'superuser-password');
  writeAsService(state, passwordFile, `${superuserPassword}\n`);
  const options = [
    '-U',
    'postgres',
    '-A',
    'scram-sha-256',
    '--no-locale',
    '-E',
    'UTF8',
    `--pwfile=${passwordFile}`,
  ];
  asService(state, libraries, join(bin, 'initdb'), ['-D', join(state.data, 'postgres'), ...options]);
  rmSync(passwordFile);
}

/** Writes a file that belongs to the service account and that nobody else can read. */
function writeAsService(state, file, text) {
  const stdio = ['pipe', 'ignore', 'pipe'];
  asService(state, '', 'sh', ['-c', 'umask 077; cat > "$0"', file], { input: text, stdio });
}

function pgCtl(state, args) {
  const program = join(state.postgres.bin, 'pg_ctl');
  // Nothing inherited: the server would keep a pipe of ours open for as long as it runs.
  asService(state, state.postgres.libraries, program, ['-D', join(state.data, 'postgres'), ...args], {
    stdio: 'ignore',
  });
}

export function postgresRuns(state) {
  try {
    pgCtl(state, ['status']);
  } catch {
    return false;
  }
  const folder = join(state.data, 'postgres');
  const pidFile = join(folder, 'postmaster.pid');
  if (!existsSync(pidFile) || !isZombie(Number.parseInt(readFileSync(pidFile, 'utf8'), 10))) return true;
  for (const name of readdirSync(folder)) {
    if (name === 'postmaster.pid' || name.startsWith('.s.PGSQL.')) rmSync(join(folder, name));
  }
  return false;
}

/** A killed server that nobody reaps (a container without an init) still has its process id, and would never start again. */
function isZombie(pid) {
  const file = `/proc/${pid}/stat`;
  return existsSync(file) && /\) Z /.test(readFileSync(file, 'utf8'));
}

export function stopPostgres(state) {
  if (postgresRuns(state)) pgCtl(state, ['stop', '-m', 'fast', '-w']);
}

/** Starts the server, or restarts one that runs without the durability asked for; true when it did either. */
export async function startPostgres(state, durable, log) {
  if (postgresRuns(state)) {
    if (state.postgres.durable || !durable) return false;
    stopPostgres(state);
  }
  state.postgres.port = await freePort(state.postgres.port);
  state.postgres.durable = durable;
  const socket = join(state.data, 'postgres');
  const settings = {
    port: state.postgres.port,
    listen_addresses: '127.0.0.1',
    // The kernel allows 107 bytes for the path of a socket.
    unix_socket_directories: Buffer.byteLength(socket) < 85 ? socket : '',
    max_connections: 200,
    shared_buffers: '128MB',
    maintenance_work_mem: '128MB',
    timezone: 'UTC',
    ...(durable ? {} : { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }),
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'\n`);
  const file = join(state.data, 'postgres', 'services.conf');
  writeAsService(state, file, lines.join(''));
  try {
    pgCtl(state, ['start', '-w', '-l', join(state.data, 'postgres.log'), '-o', `-c config_file=${file}`]);
  } catch (error) {
    const words = readFileSync(join(state.data, 'postgres.log'), 'utf8')
      .trim()
      .split('\n')
      .slice(-6)
      .join('\n');
    throw new ServicesError(`PostgreSQL did not start: ${words || error.message}`);
  }
  if (!state.postgres.prepared) prepareOwner(state);
  log(
    `PostgreSQL listens on 127.0.0.1:${state.postgres.port}${durable ? '' : ' (without fsync: for tests)'}`,
  );
  return true;
}

function prepareOwner(state) {
  const role = `LOGIN CREATEROLE PASSWORD '${state.postgres.ownerPassword}'`;
  psql(state, 'postgres', `DROP DATABASE IF EXISTS ${DATABASE}`);
  psql(state, 'postgres', `DROP ROLE IF EXISTS ${OWNER}`);
  psql(state, 'postgres', `CREATE ROLE ${OWNER} ${role}`);
  psql(state, 'postgres', `CREATE DATABASE ${DATABASE} OWNER ${OWNER}`);
  psql(state, DATABASE, 'CREATE EXTENSION vector');
  state.postgres.prepared = true;
}

/** Runs one statement as the superuser. */
export function psql(state, database, sql) {
  const { bin, port, superuserPassword } = state.postgres;
  const args = [
    '-X',
    '-q',
    '-v',
    'ON_ERROR_STOP=1',
    '-h',
    '127.0.0.1',
    '-p',
    String(port),
    '-U',
    'postgres',
    '-d',
    database,
  ];
  const env = { PGPASSWORD: superuserPassword, PGOPTIONS: '-c client_min_messages=warning' };
  asService(state, state.postgres.libraries, join(bin, 'psql'), [...args, '-c', sql], { env });
}
