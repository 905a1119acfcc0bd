import { randomUUID } from 'node:crypto';
import { link, readdir, readFile, rename, rm, unlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

/** A living process holds the directory. The message is one line for the operator. */
export class DirectoryLockedError extends Error {
  readonly directory: string;
  readonly pid: number;

  constructor(directory: string, pid: number) {
    super(
      `The database directory ${directory} is in use by process ${pid}; one process at a time can open it`,
    );
    this.name = 'DirectoryLockedError';
    this.directory = directory;
    this.pid = pid;
  }
}

interface Holder {
  pid: number;
  /** Start of the process, so that a later process with the same pid is not taken for it; null where unknown. */
  start: string | null;
  nonce: string;
}

const LOCK_FILE = 'lock';

/**
 * Takes the lock file of a directory that exists.
 *
 * The lock file appears with its whole content, by a hard link. A dead holder's lock is succeeded: whoever
 * links `lock.after-<nonce of the dead holder>` first is its one successor and puts its own lock in place by a
 * rename; a successor that dies before that is itself succeeded in the same way.
 *
 * It guards processes that see each other's pids: not two containers or two machines on one shared directory.
 *
 * @throws DirectoryLockedError when a living process (this one included) holds the directory.
 */
export async function lockDirectory(directory: string): Promise<{ release(): Promise<void> }> {
  const base = resolve(directory);
  const path = join(base, LOCK_FILE);
  const self: Holder = { pid: process.pid, start: await processStart(process.pid), nonce: randomUUID() };
  const draft = join(base, `${LOCK_FILE}.draft-${self.nonce}`);
  await writeFile(draft, JSON.stringify(self), { flag: 'wx' });
  try {
    while (!(await take(base, path, draft))) {}
  } finally {
    await rm(draft, { force: true });
  }
  await removeDrafts(base);

  async function release(): Promise<void> {
    const holder = await readHolder(path);
    if (holder?.nonce === self.nonce) await unlink(path);
  }
  return { release };
}

/** What processes that were killed while they took the lock have left. */
async function removeDrafts(base: string): Promise<void> {
  for (const name of await readdir(base)) {
    if (!name.startsWith(`${LOCK_FILE}.draft-`)) continue;
    // One that can not be read is just being written.
    const holder = await readHolder(join(base, name)).catch(() => undefined);
    if (holder && !(await isAlive(holder))) await rm(join(base, name), { force: true });
  }
}

/** One attempt: true when the lock is ours, false when another process changed it meanwhile. */
async function take(base: string, path: string, draft: string): Promise<boolean> {
  const first = await readHolder(path);
  if (!first) return linkNew(draft, path);

  const claims: string[] = [];
  let holder: Holder = first;
  for (;;) {
    if (await isAlive(holder)) throw new DirectoryLockedError(base, holder.pid);
    const claim = join(base, `${LOCK_FILE}.after-${holder.nonce}`);
    claims.push(claim);
    const successor = await readHolder(claim);
    if (!successor) break;
    holder = successor;
  }

  const ours = claims.at(-1)!;
  if (!(await linkNew(draft, ours))) return false;
  // Only one process can hold a claim, but a slow one may claim what was already succeeded and cleared away.
  const still = await readHolder(path);
  if (still?.nonce !== first.nonce) {
    await rm(ours, { force: true });
    return false;
  }
  await rename(draft, path);
  for (const claim of claims) await rm(claim, { force: true });
  return true;
}

async function linkNew(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

async function readHolder(path: string): Promise<Holder | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Holder;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function isAlive(holder: Holder): Promise<boolean> {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    // EPERM: it lives and belongs to another user.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const start = await processStart(holder.pid);
  return start === null || holder.start === null || start === holder.start;
}

/** Boot and start time (in ticks since boot) of a process on Linux; null elsewhere, or when it has gone. */
async function processStart(pid: number): Promise<string | null> {
  if (process.platform !== 'linux') return null;
  try {
    const [boot, stat] = await Promise.all([
      readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
      readFile(`/proc/${pid}/stat`, 'utf8'),
    ]);
    // proc_pid_stat(5): the name, field 2, may hold spaces and parentheses; the start time is field 22.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return `${boot.trim()}/${fields[19]}`;
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}
