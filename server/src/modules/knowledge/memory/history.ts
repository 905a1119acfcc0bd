import type { Ctx } from '#platform/context.ts';
import { invalid, notFound } from '#platform/errors.ts';
import { type PageQuery, page, positionOf } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid } from '#platform/ids.ts';
import { isPermitted } from '#platform/permission.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { viewOf, visiblePage } from '../../access/policy/service.ts';
import { openMemories, openTexts } from './encryption.ts';
import {
  type AsOf,
  type FormerMemory,
  findAsOf,
  listAsOf,
  listVersions,
  type VersionRow,
} from './history-store.ts';
import type { Memory, MemoryListQuery, MemoryVersion } from './schema.ts';
import { ofIdentity } from './seen.ts';
import { findMemories } from './store.ts';
import { targetOf } from './target.ts';
import { keptSince } from './trash.ts';

/** A point in time a caller asks for. @throws ApiError 422 for one that has not come, but for a clock that runs ahead */
function asOfTime(ctx: Ctx, as_of: string): AsOf {
  const now = new Date();
  const at = storedTimestamp(as_of, '/as_of');
  if (Date.parse(at) > now.getTime() + 60_000)
    throw invalid([{ path: '/as_of', message: 'must not be in the future' }]);
  return { at, now, keptSince: keptSince(ctx.app, now) };
}

type Now = Pick<FormerMemory, 'id' | 'identity_id' | 'type_now' | 'metadata_now'>;
const targetNow = ({ id, identity_id, type_now: type, metadata_now: metadata }: Now) =>
  targetOf({ id, identity_id, type, metadata });

const without = ({ type_now: _t, metadata_now: _m, ...memory }: Memory & Partial<FormerMemory>): Memory =>
  memory;

/**
 * A memory as it was known at a time, also when it was deleted since and can still be restored.
 * @throws ApiError 404 also when the caller may not read what it was then, or what it is now
 */
export async function getMemoryAsOf(ctx: Ctx, id: string, as_of: string): Promise<Memory> {
  const asOf = asOfTime(ctx, as_of);
  const found = isUuid(id) ? await findAsOf(ctx.db, id, asOf) : undefined;
  const isVisible =
    found &&
    (await isPermitted(ctx, 'memory:read', targetNow(found))) &&
    (await isPermitted(ctx, 'memory:read', targetOf(found)));
  if (!isVisible) throw notFound('Memory');
  const [memory] = await openMemories(ctx, [found]);
  return without(memory!);
}

/** What was known at a time, newest first. */
export async function listVisibleAsOf(ctx: Ctx, query: MemoryListQuery & { as_of: string }): Promise<Answer> {
  const { memory_type, session_id, identity_id, as_of, ...paging } = query;
  const asOf = asOfTime(ctx, as_of);
  const view = await viewOf(ctx, 'memory:list');
  const filter = { types: memory_type === undefined ? undefined : [memory_type], session_id };
  return visiblePage(ctx, 'memory:list', { memory_type, session_id, identity_id, as_of }, paging, {
    rows: ofIdentity<FormerMemory>(identity_id, (from) => listAsOf(ctx.db, filter, from, asOf)),
    owned: true,
    open: (rows) => openMemories(ctx, rows),
    // Policy has to allow both: a text may have been taken out before the memory was opened up, or have been shut since.
    target: (row) => (view.sees(targetNow(row)) ? targetOf(row) : targetNow(row)),
    position: ({ id }) => [id],
    size: 100,
  });
}

type Entry = Omit<VersionRow, 'valid_until'> & {
  id: string;
  identity_id: string;
  valid_until: string | null;
};

/** The states of a memory, newest first. @throws ApiError 404 as for reading it */
export async function historyOf(ctx: Ctx, id: string, query: PageQuery): Promise<Answer> {
  const [memory] = isUuid(id) ? await findMemories(ctx.db, [id], new Date()) : [];
  if (!memory || !(await isPermitted(ctx, 'memory:read', targetOf(memory)))) throw notFound('Memory');
  const limit = query.limit ?? 100;
  const list = `memory:history ${memory.id}`;
  const after = positionOf(ctx, list, {}, query.cursor);
  const view = await viewOf(ctx, 'memory:read');
  const shown: MemoryVersion[] = [];
  const current = { ...memory, valid_from: memory.updated_at, valid_until: null } as unknown as Entry;
  for (let next = after ? Number(after[0]) : memory.version + 1; shown.length <= limit; ) {
    // Two more: for what made the last one shown, and to see whether there is a page after it.
    const former = await listVersions(ctx.db, memory.id, next, limit + 2);
    const entries: Entry[] = former.map((row) => ({
      ...row,
      id: memory.id,
      identity_id: memory.identity_id,
    }));
    if (next > memory.version) entries.unshift(current);
    const known = former.length < limit + 2 ? entries : entries.slice(0, -1);
    const visible = known.filter((entry) => view.sees(targetOf(entry)));
    const texts = await openTexts(ctx, visible);
    shown.push(...visible.map((entry, i) => stateOf(entry, texts[i]!, entries[entries.indexOf(entry) + 1])));
    if (former.length < limit + 2) break;
    next = known.at(-1)!.version;
  }
  return page(ctx, list, {}, shown.slice(0, limit + 1), limit, ({ version }) => [version]);
}

/** @param older the version before it, whose end it is */
function stateOf(entry: Entry, text: string, older: Entry | undefined): MemoryVersion {
  const { version, type, metadata, session_id, role, occurred_at, ttl_days, expires_at } = entry;
  return {
    version,
    text,
    type,
    metadata,
    session_id,
    role,
    occurred_at,
    ttl_days,
    expires_at,
    sensitive: entry.sealed !== null,
    valid_from: entry.valid_from,
    valid_until: entry.valid_until,
    change: older?.change ?? 'created',
    changed_by:
      older && older.replaced_by_type !== null
        ? { type: older.replaced_by_type, id: older.replaced_by, on_behalf_of: older.on_behalf_of }
        : null,
    request_id: older?.request_id ?? null,
  };
}
