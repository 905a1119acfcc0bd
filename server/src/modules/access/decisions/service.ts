import type { App, Ctx } from '#platform/context.ts';
import { sha256 } from '#platform/crypto.ts';
import { isDatabaseUnavailable } from '#platform/errors.ts';
import { perApp } from '#platform/per-app.ts';
import {
  deleteDecisionsOf,
  deleteOldDecisions,
  type RecordedDecision,
  type RecordedQuestion,
  trimDecisions,
  upsertDecisions,
} from './store.ts';

export {
  listDecisions,
  type RecordedDecision,
  type RecordedQuestion,
  type RecordedTarget,
} from './store.ts';

/** How a question was decided. */
export interface Outcome {
  allowed: boolean;
  policy_id: string | null;
  reason: string;
}

/** A question this process has seen, and what of it is not written yet. */
interface Seen {
  tenant: string;
  key: string;
  question: RecordedQuestion;
  outcome: Outcome;
  /** Times since it was last written. */
  count: number;
  first: number;
  last: number;
  ip: string | undefined;
  /** When it was last written; 0: never, or its outcome has changed since. */
  written: number;
}

interface Memory {
  /** By tenant and key, the longest known first. */
  seen: Map<string, Seen>;
  /** To be written at the next flush. */
  fresh: Set<Seen>;
  dropped: number;
  /** New rows by tenant since its rows were last counted. */
  added: Map<string, number>;
  /** Resolves when nothing is being written. */
  writing: Promise<void>;
}

/** Questions a process remembers; beyond it the longest known are written once more and forgotten. */
const remembered = 20_000;
/** A question that is asked again and again is written this often, and at once when it is new or decided otherwise. */
const repeatMs = 60_000;
/** Rows written by one statement. */
const batchSize = 500;

const memoryOf = perApp(
  (): Memory => ({
    seen: new Map(),
    fresh: new Set(),
    dropped: 0,
    added: new Map(),
    writing: Promise.resolve(),
  }),
);

/**
 * Remembers how a question was decided. Nothing is written here: a question seen before costs a look-up and a count.
 * @param key the question as text, without what differs at every request (time, address)
 * @param question the same as an object; made for new questions only
 */
export function recordDecision(
  app: App,
  tenant: string,
  key: string,
  outcome: Outcome,
  question: () => RecordedQuestion,
  ip: string | undefined,
): void {
  const memory = memoryOf(app);
  const name = `${tenant}\n${key}`;
  const now = Date.now();
  const known = memory.seen.get(name);
  if (known) {
    known.count += 1;
    known.last = now;
    if (ip !== undefined) known.ip = ip;
    if (known.outcome.policy_id === outcome.policy_id && known.outcome.allowed === outcome.allowed) return;
    known.outcome = outcome;
    memory.fresh.add(known);
    return;
  }
  if (app.config.DECISION_RETENTION_DAYS === 0) return;
  if (memory.fresh.size >= remembered) {
    memory.dropped += 1;
    return;
  }
  const seen: Seen = {
    tenant,
    key,
    question: question(),
    outcome,
    count: 1,
    first: now,
    last: now,
    ip,
    written: 0,
  };
  memory.seen.set(name, seen);
  memory.fresh.add(seen);
  if (memory.seen.size > remembered) forgetOldest(memory);
}

function forgetOldest({ seen, fresh }: Memory): void {
  const [name, oldest] = seen.entries().next().value!;
  seen.delete(name);
  if (oldest.count > 0) fresh.add(oldest);
}

/**
 * Writes what was decided: new questions and those decided otherwise now, the repeats of the others once a minute.
 * @param all the repeats as well: of every tenant, or of one
 */
export function flushDecisions(app: App, all: boolean | string = false): Promise<void> {
  const memory = memoryOf(app);
  // One after another: whoever waits for this one also waits for what an earlier one is still writing.
  const written = memory.writing.then(() => flush(app, memory, all));
  memory.writing = written.catch(() => {});
  return written;
}

async function flush(app: App, memory: Memory, all: boolean | string): Promise<void> {
  const now = Date.now();
  for (const seen of memory.seen.values())
    if (seen.count > 0 && (all === true || all === seen.tenant || now - seen.written >= repeatMs))
      memory.fresh.add(seen);
  if (memory.fresh.size === 0) return;
  const waiting = Map.groupBy(memory.fresh, ({ tenant }) => tenant);
  memory.fresh = new Set();
  if (memory.dropped) app.log.warn({ dropped: memory.dropped }, 'more new questions than are recorded');
  memory.dropped = 0;
  for (const [tenant, twice] of waiting) {
    const list = merged(twice);
    for (let i = 0; i < list.length; i += batchSize)
      await write(app, memory, tenant, list.slice(i, i + batchSize));
  }
}

/** A question that was forgotten and asked again is there twice; one statement may touch a row only once. */
function merged(list: Seen[]): Seen[] {
  const byKey = new Map<string, Seen>();
  for (const seen of list) {
    const other = byKey.get(seen.key);
    if (other) {
      seen.count += other.count;
      seen.first = Math.min(seen.first, other.first);
    }
    byKey.set(seen.key, seen);
  }
  return [...byKey.values()];
}

async function write(app: App, memory: Memory, tenant: string, list: Seen[]): Promise<void> {
  const rows = list.map((seen): RecordedDecision & { hash: Buffer } => ({
    hash: sha256(seen.key),
    question: seen.question,
    ...seen.outcome,
    count: seen.count,
    ip: seen.ip ?? null,
    first_seen: new Date(seen.first).toISOString(),
    last_seen: new Date(seen.last).toISOString(),
  }));
  for (const seen of list) {
    seen.count = 0;
    seen.written = Date.now();
  }
  const added = (memory.added.get(tenant) ?? 0) + list.length;
  const kept = app.config.DECISIONS_KEPT;
  // Counting a tenant's rows at each flush would cost more than writing them.
  const crowded = added * 10 >= kept;
  memory.added.set(tenant, crowded ? 0 : added);
  try {
    await app.database
      .tenant(tenant)
      .batch([upsertDecisions(tenant, rows), ...(crowded ? [trimDecisions(tenant, kept)] : [])]);
  } catch (error) {
    if (!isDatabaseUnavailable(error)) {
      app.log.error({ err: error, tenant_id: tenant, lost: rows.length }, 'decisions can not be recorded');
      return;
    }
    list.forEach((seen, i) => {
      seen.count += rows[i]!.count;
      seen.written = 0;
      memory.fresh.add(seen);
    });
  }
}

/** Forgets what an identity asked, and what was asked about it. */
export const forgetDecisionsOf = async (ctx: Ctx, identityId: string): Promise<void> =>
  void (await ctx.db.run(deleteDecisionsOf(ctx.tenant, identityId)));

/** Forgets decisions past their time. */
export const pruneDecisions = (app: App): Promise<void> =>
  deleteOldDecisions(
    app.database.operator,
    new Date(Date.now() - app.config.DECISION_RETENTION_DAYS * 86_400_000),
  );
