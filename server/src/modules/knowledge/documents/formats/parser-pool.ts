import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { App } from '#platform/context.ts';
import { perApp } from '#platform/per-app.ts';
import { Unreadable } from './format.ts';
import type { Parsed, ParseReply, ParseRequest } from './parse.ts';

/** A process reads so many documents of one tenant before a new one takes its place. */
const mostDocuments = 50;
const idleMs = 10_000;
const memoryPollMs = 100;

const program = fileURLToPath(new URL('./parser-process.ts', import.meta.url));
const root = fileURLToPath(new URL('../../../../../../', import.meta.url));

interface Parser {
  child: ChildProcess;
  tenant: string;
  documents: number;
  /** Time it has worked so far. */
  usedMs: number;
  idle: NodeJS.Timeout | undefined;
}

export interface ParserPool {
  /**
   * Reads a document in a process apart from the server.
   * @throws Unreadable when its bytes, or what reading them takes, are the reason; Error when it may work another time
   */
  parse(tenant: string, request: ParseRequest, signal: AbortSignal): Promise<Parsed>;
}

/** The parsers of a server process. Documents of two tenants are never read by the same process. */
export const parsersOf = perApp((app: App): ParserPool => {
  const { PARSE_TIMEOUT_MS: timeoutMs, PARSE_MEMORY_MB: memoryMb } = app.config;
  const waiting = new Set<Parser>();

  const end = (parser: Parser) => {
    waiting.delete(parser);
    clearTimeout(parser.idle);
    parser.child.kill('SIGKILL');
  };
  app.closing.addEventListener('abort', () => {
    for (const parser of waiting) end(parser);
  });

  const take = (tenant: string): Parser => {
    const known = [...waiting].find((parser) => parser.tenant === tenant);
    if (!known)
      return { child: start(timeoutMs, memoryMb), tenant, documents: 0, usedMs: 0, idle: undefined };
    waiting.delete(known);
    clearTimeout(known.idle);
    hold(known.child, true);
    return known;
  };

  const giveBack = async (parser: Parser) => {
    parser.documents += 1;
    // Memory that a large document took is not always given back, and would count against the next one.
    const isLarge = (await residentMb(parser.child.pid)) > ownMb + memoryMb / 4;
    if (app.closing.aborted || isLarge || parser.documents >= mostDocuments || parser.usedMs > timeoutMs)
      return end(parser);
    waiting.add(parser);
    // Nothing it says or does keeps the server from ending.
    hold(parser.child, false);
    parser.idle = setTimeout(() => end(parser), idleMs).unref();
    const [oldest] = waiting;
    if (waiting.size > app.config.INGEST_MAX_CONCURRENCY) end(oldest!);
  };

  return {
    parse: async (tenant, request, signal) => {
      signal.throwIfAborted();
      const parser = take(tenant);
      const began = performance.now();
      try {
        const reply = await ask(parser.child, request, { timeoutMs, memoryMb, signal });
        parser.usedMs += performance.now() - began;
        await giveBack(parser);
        if ('ok' in reply) return reply.ok;
        if ('unreadable' in reply) throw new Unreadable(reply.unreadable);
        app.log.warn({ tenant_id: tenant, format: request.format, failed: reply.failed }, 'a parser failed');
        throw new Unreadable('The document is damaged in a way its reader does not expect.');
      } catch (error) {
        if (!waiting.has(parser)) end(parser);
        throw error;
      }
    },
  };
});

/** What a program at `root` is read from: where one of these is a link, also what that leads to. */
export function programFiles(root: string): string[] {
  const there = ['node_modules', 'package.json', 'server/src', 'server/package.json', 'server/node_modules']
    .map((path) => join(root, path))
    .filter((path) => existsSync(path));
  return [...new Set(there.flatMap((path) => [path, realpathSync(path)]))];
}

/**
 * Starts a parser: with nothing of the server's environment, with no rights to files but those of the program, with
 * limits of memory and of the processor's time. The latter ends one whose server was killed while it turned in a circle.
 */
function start(timeoutMs: number, memoryMb: number): ChildProcess {
  const cpuS = Math.ceil(timeoutMs / 1_000) * 5;
  const flags = [
    `--max-old-space-size=${memoryMb}`,
    '--disallow-code-generation-from-strings',
    '--permission',
    ...programFiles(root).map((path) => `--allow-fs-read=${path}`),
    '--no-warnings',
  ];
  const child = spawn(
    '/bin/sh',
    ['-c', `ulimit -c 0 -t ${cpuS} 2>/dev/null; exec "$0" "$@"`, process.execPath, ...flags, program],
    { env: {}, stdio: ['ignore', 'ignore', 'ignore', 'ipc'], serialization: 'advanced' },
  );
  // Requests come first; and where the machine runs out of memory, this is what should go.
  if (child.pid !== undefined) {
    try {
      setPriority(child.pid, 10);
    } catch {
      // It is gone already, which `ask` will tell.
    }
    writeFile(`/proc/${child.pid}/oom_score_adj`, '1000').catch(() => {});
  }
  return child;
}

function hold(child: ChildProcess, held: boolean): void {
  const handles = [child, child.channel];
  for (const handle of handles) {
    if (held) handle?.ref();
    else handle?.unref();
  }
}

interface Limits {
  timeoutMs: number;
  memoryMb: number;
  signal: AbortSignal;
}

/** Hands a document over and waits for what becomes of it or of the process. */
function ask(child: ChildProcess, request: ParseRequest, limits: Limits): Promise<ParseReply> {
  const { promise, resolve, reject } = Promise.withResolvers<ParseReply>();
  const tooMuch = () =>
    new Unreadable(`Reading the document takes more than the ${limits.memoryMb} MB of memory allowed.`);
  const late = setTimeout(() => {
    const seconds = Math.round(limits.timeoutMs / 100) / 10;
    reject(new Unreadable(`Reading the document takes longer than the ${seconds} s allowed.`));
  }, limits.timeoutMs);
  const poll = setInterval(async () => {
    if ((await residentMb(child.pid)) > limits.memoryMb + ownMb) reject(tooMuch());
  }, memoryPollMs);
  const aborted = () => reject(limits.signal.reason);
  const exited = (code: number | null, signal: NodeJS.Signals | null) => {
    // V8 aborts when its heap is full; the kernel kills what takes the machine's last memory.
    if (signal === 'SIGABRT' || signal === 'SIGKILL' || signal === 'SIGTRAP' || code === 134)
      reject(tooMuch());
    else if (signal === 'SIGXCPU') reject(new Unreadable('Reading the document takes too long.'));
    else if (signal === 'SIGSEGV' || signal === 'SIGBUS' || signal === 'SIGILL')
      reject(new Unreadable('The document is damaged in a way its reader does not survive.'));
    else reject(new Error(`a parser ended with ${signal ?? code}`));
  };
  const failed = (error: Error) => reject(error);
  child.once('message', resolve as (message: unknown) => void);
  child.once('exit', exited);
  child.once('error', failed);
  limits.signal.addEventListener('abort', aborted);
  child.send({ ...request }, (error) => error && reject(error));
  return promise.finally(() => {
    clearTimeout(late);
    clearInterval(poll);
    child.off('message', resolve as (message: unknown) => void);
    child.off('exit', exited);
    limits.signal.removeEventListener('abort', aborted);
    child.off('error', failed);
  });
}

/** What a process has before it reads anything. */
const ownMb = 128;

/** Memory outside V8's heap (unpacked archives, say) is known to the system alone; 0 where it does not tell. */
async function residentMb(pid: number | undefined): Promise<number> {
  try {
    const status = await readFile(`/proc/${pid}/status`, 'latin1');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1_024;
  } catch {
    return 0;
  }
}
