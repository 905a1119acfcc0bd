import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { App, Ctx, Permission, Target } from '#platform/context.ts';
import { isDatabaseUnavailable, unavailable } from '#platform/errors.ts';
import { abandonmentOf } from '#platform/http/forward.ts';
import { openEventStream } from '#platform/http/sse.ts';
import { perApp } from '#platform/per-app.ts';
import { isPermitted } from '#platform/permission.ts';
import { actorNow } from '../../access/delegations/service.ts';
import { type ReadableRun, readEvents, type StoredEvents, watchRun } from './event-store.ts';
import { eventFramer, heartbeatFrame, type RunNames } from './events.ts';
import { MORE_EVENTS } from './flush.ts';
import type { RunLog } from './log.ts';
import { endLostRun } from './record.ts';
import { attachReader, lostBefore, RUN_ENDED, type RunUnderWay } from './under-way.ts';

/** Frames that are written at once before a reader is asked whether it has room. */
const pageBytes = 32 * 1024;
/** Batches read at once; one holds what came within some milliseconds, or a whole answer. */
const pageBatches = 16;
/** How often rows are looked at for more, where no word of it comes. */
const lookMs = 200;
/** A reader elsewhere says so often that it is there, and is believed for three times as long. */
const watchMs = 5_000;
const shutDownLingerMs = 1_000;
/** How long a reader waits for a database that is away before it asks again. */
const awayMs = 500;

/** What a reader had to be allowed before it was let in. It is asked again while it reads. */
export type Asked = [permission: Permission, target?: Target][];

interface Page {
  text: string;
  last: number;
  done: boolean;
}

/** Where a reader gets events from: the log of this process, or the rows. */
interface Source {
  names: RunNames;
  /** What came after a number; no text when there is nothing yet. `undefined` when it has to be read elsewhere. */
  read(after: number): Promise<Page> | Page | undefined;
  /** Calls `more` when there may be something new; answers how to stop that. */
  listen(more: () => void): () => void;
}

/** Readers of a process: their number is bounded, and all are woken or let go when it shuts down. */
export const readersHere = perApp((app) => {
  const waiting = new Map<string, Set<() => void>>();
  const responses = new Set<ServerResponse>();
  app.shared.onInvalidate((topic, id) => {
    if (topic === MORE_EVENTS || topic === RUN_ENDED) for (const more of waiting.get(id) ?? []) more();
  });
  app.closing.addEventListener('abort', () => {
    for (const mores of waiting.values()) for (const more of mores) more();
    // One that does not take the rest may not keep the process from ending. The others wait for what is being stored.
    setTimeout(() => {
      for (const response of responses) if (response.writableNeedDrain) response.destroy();
    }, shutDownLingerMs).unref();
  });
  return {
    enter: (response: ServerResponse): void => {
      if (response.destroyed) return;
      const count = () => app.metrics.runReaders.set(responses.size);
      responses.add(response);
      count();
      response.once('close', () => {
        responses.delete(response);
        count();
      });
    },
    /** @throws ApiError 503 SERVICE_BUSY when there are as many as a process can serve */
    checkRoom: (): void => {
      if (responses.size < 2 * app.config.RUN_MAX_CONCURRENCY) return;
      throw unavailable(
        'SERVICE_BUSY',
        'The server has as many readers as it can serve. Repeat the request.',
        1,
      );
    },
    listen: (id: string, more: () => void): (() => void) => {
      const mores = waiting.get(id) ?? new Set();
      waiting.set(id, mores);
      mores.add(more);
      const timer = setInterval(more, lookMs);
      return () => {
        clearInterval(timer);
        mores.delete(more);
        if (mores.size === 0) waiting.delete(id);
      };
    },
  };
});

const logSource = (log: RunLog): Source => ({
  names: log.names,
  read: (after) => {
    const page = log.read(after, pageBytes);
    return page === 'rows' ? undefined : page;
  },
  listen: (more) => log.listen(more),
});

/** Reads what is stored. Where no process works on the run any more it says so, so that its end is there to be read. */
function rowSource(ctx: Ctx, names: RunNames): Source {
  const pageAfter = async (after: number): Promise<Page> => {
    const { run, batches } = await readEvents(ctx.db, names.id, after, pageBatches);
    if (batches.length > 0) return pageOf(names, batches, after);
    if (run?.status === 'running') {
      if (isLost(ctx.app, run)) await endLostRun(ctx, run.id);
      return { text: '', last: after, done: false };
    }
    // Its last events are there since it is over: unless it has been removed there is nothing more, or all of it.
    const rest = run ? (await readEvents(ctx.db, names.id, after, pageBatches)).batches : [];
    return rest.length > 0 ? pageOf(names, rest, after) : { text: '', last: after, done: true };
  };
  return {
    names,
    read: (after) => whenReachable(after, () => pageAfter(after)),
    listen: (more) => readersHere(ctx.app).listen(names.id, more),
  };
}

/** While the database is away there is nothing new. */
async function whenReachable(after: number, read: () => Promise<Page>): Promise<Page> {
  try {
    return await read();
  } catch (error) {
    if (!isDatabaseUnavailable(error)) throw error;
    await sleep(awayMs);
    return { text: '', last: after, done: false };
  }
}

function pageOf(names: RunNames, batches: StoredEvents[], after: number): Page {
  const frameOf = eventFramer(names);
  const page: Page = { text: '', last: after, done: false };
  for (const { last_seq, events } of batches) {
    if (page.text.length >= pageBytes) break;
    for (const [index, [type, data]] of events.entries()) {
      const seq = last_seq - events.length + 1 + index;
      if (seq <= page.last) continue;
      page.text += frameOf(seq, type, JSON.stringify(data));
      page.last = seq;
      page.done = type === 'done';
    }
  }
  return page;
}

function isLost(app: App, { lease_until, process_id }: ReadableRun): boolean {
  const { now, only_process } = lostBefore(app);
  return lease_until < now || (only_process !== undefined && process_id !== only_process);
}

/** Reads a run that this process works on, from after number `after`, to its end or until the reader leaves. */
export async function followHere(
  ctx: Ctx,
  one: RunUnderWay,
  asked: Asked,
  after: number,
  response: ServerResponse,
): Promise<void> {
  const leave = attachReader(ctx.app, one);
  let sawEnd = false;
  try {
    const here = logSource(one.log);
    const rows = rowSource(ctx, one.log.names);
    sawEnd = await pump(ctx, asked, response, here, rows, after, () => !one.isOver);
  } finally {
    leave(sawEnd, abandonmentOf(response));
  }
}

/** Reads a run from what is stored: it is over, or another process works on it. */
export async function followRows(
  ctx: Ctx,
  run: ReadableRun,
  asked: Asked,
  after: number,
  response: ServerResponse,
): Promise<void> {
  const rows = rowSource(ctx, run);
  let watch: NodeJS.Timeout | undefined;
  if (run.status === 'running') {
    const say = () =>
      ctx.db
        .run(watchRun(ctx.tenant, run.id, new Date(Date.now() + 3 * watchMs)))
        .catch((error) => ctx.log.warn({ err: error, run_id: run.id }, 'a reader could not say it is there'));
    await say();
    watch = setInterval(say, watchMs);
  }
  try {
    await pump(ctx, asked, response, rows, rows, after, () => false);
  } finally {
    clearInterval(watch);
  }
}

/** Whether a reader would be let in again: its credential, role and scopes may have changed, and what policies say. */
async function mayStillRead(ctx: Ctx, asked: Asked): Promise<boolean> {
  const actor = await actorNow(ctx);
  if (!actor) return false;
  // Not decided by the policies its request began with.
  const now: Ctx = Object.create(ctx, { actor: { value: actor } });
  for (const [permission, target] of asked) if (!(await isPermitted(now, permission, target))) return false;
  return true;
}

/**
 * Writes events to one reader as fast as it takes them. It holds no more of them than one page: a slow reader is
 * behind, and reads what it missed from memory or from the rows. What a log has new is written where it is appended,
 * without a turn of promises in between. A reader that would not be let in any more is let go with the next heartbeat that is due.
 * @param endsHere whether the end of the run is still to come from this process, also while that shuts down
 * @returns true when the reader has got the last event
 */
function pump(
  ctx: Ctx,
  asked: Asked,
  response: ServerResponse,
  first: Source,
  rows: Source,
  after: number,
  endsHere: () => boolean,
): Promise<boolean> {
  const { app } = ctx;
  readersHere(app).enter(response);
  const stream = openEventStream(response);
  const heartbeatMs = app.config.RUN_SSE_HEARTBEAT_S * 1_000;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  let at = after;
  /** Reading rows, or waiting until the reader has room. */
  let isBusy = false;
  let hasRoom = true;
  let isOver = false;
  let isChanged = false;

  const end = (sawEnd: boolean) => {
    if (isOver) return;
    isOver = true;
    clearTimeout(beat);
    clearInterval(guard);
    for (const stop of stops) stop();
    stream.end(app.closing.aborted ? shutDownLingerMs : undefined);
    resolve(sawEnd);
  };
  const fail = (error: unknown) => {
    // A reader that is broken off comes back, and sees what became of it.
    ctx.log.error({ err: error, run_id: first.names.id }, 'the events of a run could not be read');
    response.destroy();
    end(false);
  };
  const goOnAfter = <T>(work: Promise<T>, then: (value: T) => boolean) => {
    isBusy = true;
    work
      .then((value) => {
        isBusy = false;
        if (then(value)) step();
      })
      .catch(fail);
  };
  const written = ({ done }: Page): boolean => {
    if (done) end(!stream.closed);
    return !done;
  };
  /** @returns false when there is nothing to do now */
  const take = (page: Page): boolean => {
    if (page.text === '') {
      if (page.done) end(!stream.closed);
      else if (app.closing.aborted && !endsHere()) end(false);
      return isChanged;
    }
    at = page.last;
    const room = stream.write(page.text);
    beat.refresh();
    if (!room) return written(page);
    hasRoom = false;
    goOnAfter(room, () => {
      hasRoom = true;
      return written(page);
    });
    return false;
  };
  const step = () => {
    while (!isBusy && !isOver) {
      if (stream.closed) return end(false);
      isChanged = false;
      let page = first.read(at);
      if (page === undefined) {
        // Behind what is at hand here, or ended by others. It comes back when it has caught up.
        if (stops.length === 1) stops.push(rows.listen(more));
        page = rows.read(at)!;
      } else if (stops.length > 1) stops.pop()!();
      if (page instanceof Promise) return goOnAfter(page, take);
      if (!take(page)) return;
    }
  };
  const more = () => {
    isChanged = true;
    try {
      step();
    } catch (error) {
      fail(error);
    }
  };
  const beat = setTimeout(() => {
    beat.refresh();
    if (hasRoom) void stream.write(heartbeatFrame(first.names, at));
  }, heartbeatMs);
  // Who comes back is told why it may not. While the database is away nobody is sent away.
  const guard = setInterval(async () => {
    if (!(await mayStillRead(ctx, asked).catch(() => true))) end(false);
  }, heartbeatMs);
  const stops = [first.listen(more)];
  stream.onClose(() => end(false));
  step();
  return promise;
}
