import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { Ctx } from '#platform/context.ts';
import { invalid } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { Stream } from '#platform/http/route.ts';
import { firstUuidv7, isUuid } from '#platform/ids.ts';
import { stillHolds } from '../../access/delegations/service.ts';
import { possiblyIn, type View, viewOf } from '../../access/policy/service.ts';
import { openMemories, openTexts } from './encryption.ts';
import { listForExport } from './export-store.ts';
import { readVersions, type VersionRow } from './history-store.ts';
import type { MemoryLine } from './import-schema.ts';
import type { Memory } from './schema.ts';
import { memoryColumns } from './store.ts';
import { targetOf } from './target.ts';

export interface ExportQuery {
  memory_type?: string;
  session_id?: string;
  identity_id?: string;
  /** Every former version too. */
  history?: boolean;
  /** Only what comes after this id: where a download that broke off goes on. */
  after?: string;
}

/** Memories read and written at once, which is all an export holds of them: as many as make some bytes. */
const batch = { first: 100, least: 5, most: 500, bytes: 4 * 1024 * 1024 };
/** A reader that takes nothing for so long is taken for gone. */
const stallMs = 60_000;

/**
 * Writes all memories the caller may see, one line of JSON each, in the order of their ids: what there was when it began, each
 * as it is when its turn comes. Holds one batch in memory and waits for a slow reader, as long as
 * its credential holds. A connection that ends without the
 * last chunk tells that the file is not complete.
 */
export async function exportMemories(ctx: Ctx, query: ExportQuery): Promise<Stream> {
  if (query.after !== undefined && !isUuid(query.after))
    throw invalid([{ path: '/after', message: 'must be the id of a memory' }]);
  const view = await viewOf(ctx, 'memory:list');
  const owner = view.onlyOwn ? ctx.actor.identity_id : query.identity_id;
  const isElsewhere =
    query.identity_id !== undefined && (owner !== query.identity_id || !isUuid(query.identity_id));
  return new Stream(async (_request, response) => {
    response.writeHead(200, {
      'content-type': 'application/x-ndjson; charset=utf-8',
      'content-disposition': 'attachment; filename="memories.ndjson"',
      'cache-control': 'no-store',
    });
    response.flushHeaders();
    try {
      const nothing = view.rows === 'none' || isElsewhere || (view.onlyOwn && owner === undefined);
      const count = nothing ? 0 : await writeAll(ctx, query, owner, view, response);
      await ctx.db.batch([
        fact(ctx, { type: 'memory.exported', resource_type: 'memory', data: { exported_count: count } }),
      ]);
      response.end();
    } catch (error) {
      if (!response.destroyed) ctx.log.warn({ err: error }, 'an export was broken off');
      // Not ended: the reader must not take what it has for all there is.
      response.destroy();
    }
  });
}

async function writeAll(
  ctx: Ctx,
  query: ExportQuery,
  owner: string | undefined,
  view: View,
  response: ServerResponse,
): Promise<number> {
  const { memory_type, session_id, history } = query;
  const seen = view.rows === 'each' ? view.letThrough(memoryColumns) : true;
  if (seen === false) return 0;
  const filter = {
    owner,
    session_id,
    types: memory_type === undefined ? undefined : [memory_type],
    visible: seen === true || seen === null ? undefined : possiblyIn(seen),
  };
  // What comes while it is written is not waited for; ids of this very millisecond belong to it.
  const last = firstUuidv7(Date.now() + 1);
  let count = 0;
  let size = batch.first;
  for (let after = query.after; ; ) {
    // Also where nothing is written for long, because most of it is not for the reader.
    if (response.destroyed) throw gone();
    // A slow reader may take hours.
    if (!(await stillHolds(ctx))) throw new Error('the credential of the reader ended');
    const rows = await listForExport(ctx.db, filter, after, last, size, new Date());
    const shown = view.rows === 'each' ? rows.filter((row) => view.sees(targetOf(row))) : rows;
    const memories = await openMemories(ctx, shown);
    const versions = history ? await versionsOf(ctx, memories, view) : undefined;
    const lines = memories.map((memory) => `${JSON.stringify(lineOf(memory, versions?.get(memory.id)))}\n`);
    count += lines.length;
    const text = lines.join('');
    if (text) await write(response, text);
    if (rows.length < size) return count;
    after = rows.at(-1)!.id;
    size = nextSize(size, Math.max(text.length, lengthOf(rows)));
  }
}

const lengthOf = (rows: Memory[]): number => rows.reduce((sum, { text }) => sum + text.length, 0);

/** How many to read next, after so many were so long. */
const nextSize = (size: number, length: number): number =>
  Math.round(Math.min(2 * size, batch.most, Math.max(batch.least, (size * batch.bytes) / (length + 1))));

const gone = () => new Error('the reader is gone');

/** Waits until there is room for more. @throws Error when the reader is gone */
async function write(response: ServerResponse, text: string): Promise<void> {
  if (response.destroyed) throw gone();
  if (response.write(text)) return;
  const stall = setTimeout(() => response.destroy(), stallMs);
  const left = new AbortController();
  const leave = () => left.abort(gone());
  response.once('close', leave);
  try {
    if (response.writableNeedDrain) await once(response, 'drain', { signal: left.signal });
  } finally {
    clearTimeout(stall);
    response.off('close', leave);
  }
}

function lineOf(memory: Memory, versions: MemoryLine['versions']): MemoryLine {
  const { id, identity_id, text, type, metadata, session_id, role, occurred_at } = memory;
  const { ttl_days, expires_at, version, sensitive, derived_from, created_at, updated_at } = memory;
  return {
    id,
    identity_id,
    text,
    type,
    metadata,
    session_id,
    role: role as NonNullable<MemoryLine['role']>,
    occurred_at,
    // A line gives one of both; the days are counted from created_at.
    ...(ttl_days === null ? { expires_at } : { ttl_days }),
    version,
    sensitive,
    ...(derived_from ? { derived_from } : {}),
    created_at,
    updated_at,
    ...(versions ? { versions } : {}),
  };
}

/** The former versions of memories, those the caller may see, oldest first. */
async function versionsOf(
  ctx: Ctx,
  memories: Memory[],
  view: View,
): Promise<Map<string, NonNullable<MemoryLine['versions']>>> {
  const owners = new Map(memories.map(({ id, identity_id }) => [id, identity_id]));
  const rows = (await readVersions(ctx.db, [...owners.keys()])).filter(
    (row) =>
      view.rows !== 'each' ||
      view.sees(targetOf({ ...row, id: row.memory_id, identity_id: owners.get(row.memory_id)! })),
  );
  const texts = await openTexts(
    ctx,
    rows.map((row) => ({ ...row, id: row.memory_id })),
  );
  const found = new Map<string, NonNullable<MemoryLine['versions']>>(memories.map(({ id }) => [id, []]));
  for (const [i, row] of rows.entries()) found.get(row.memory_id)!.push(versionOf(row, texts[i]!));
  return found;
}

const versionOf = (
  {
    version,
    type,
    metadata,
    session_id,
    role,
    occurred_at,
    ttl_days,
    expires_at,
    valid_from,
    valid_until,
  }: VersionRow,
  text: string,
): NonNullable<MemoryLine['versions']>[number] => ({
  version,
  text,
  type,
  metadata,
  session_id,
  role: role as NonNullable<MemoryLine['role']>,
  occurred_at,
  ttl_days,
  expires_at,
  valid_from,
  valid_until,
});
