import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { ApiError, forbidden } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { canonicalJson } from '#platform/http/json.ts';
import { isUuid } from '#platform/ids.ts';
import { requireScope } from '#platform/permission.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { type Asking, dataKeysOf } from '../../access/data-keys/service.ts';
import type { View } from '../../access/policy/service.ts';
import { applyChange, type Changes } from './change.ts';
import { openMemories, sealRows, sealText } from './encryption.ts';
import type { LineProblem, ParsedLine } from './import-line.ts';
import {
  findSources,
  findTaken,
  type ImportRow,
  insertSources,
  insertVersions,
  lockKnown,
  type NewVersion,
} from './import-store.ts';
import { insertDerivations } from './inference-store.ts';
import type { Memory } from './schema.ts';
import { alwaysSensitive } from './sensitive-types.ts';
import { targetOf } from './target.ts';
import { erasedAmong, erasedMessage } from './tombstones.ts';
import { insertMemories } from './write-store.ts';

/** What became of the lines of a piece. */
export interface MergedLines {
  created: number;
  updated: number;
  unchanged: number;
  problems: LineProblem[];
}

const keyOf = (owner: string, source: string) => `${owner} ${source}`;

/**
 * Stores lines within the transaction of their piece. A line that was imported before, or that names a memory of its owner,
 * changes that one; the others become memories.
 */
export async function mergeLines(
  ctx: Ctx,
  tx: Db,
  work: ImportRow,
  lines: ParsedLine[],
  update: View,
): Promise<MergedLines> {
  const asking = { app: ctx.app, tenant: ctx.tenant, db: tx };
  const merged: MergedLines = { created: 0, updated: 0, unchanged: 0, problems: [] };
  const fail = ({ line }: ParsedLine, code: string, message: string) =>
    merged.problems.push({ line, code, message });
  const said = lines.flatMap((line) =>
    line.owners.flatMap((identity_id) =>
      [line.row, ...line.versions].map(({ text }) => ({ line, identity_id, text })),
    ),
  );
  const erased = new Set([...(await erasedAmong(asking, said, true))].map((i) => said[i]!.line));
  const learnable = lines.filter((line) => {
    if (erased.has(line)) fail(line, 'MEMORY_ERASED', erasedMessage);
    return !erased.has(line);
  });
  const known = await knownOf(asking, learnable);
  const fresh: ParsedLine[] = [];
  // Of a source that comes twice in a piece the first is stored before the second changes it.
  const pending = new Map<string, ParsedLine>();
  for (const line of learnable) {
    const key = line.source_id === undefined ? undefined : keyOf(line.row.identity_id, line.source_id);
    if (key !== undefined && pending.has(key)) {
      await storeNew(ctx, asking, work, fresh.splice(0));
      const stored = new Map(
        (
          await lockOpen(
            asking,
            [...pending.values()].map(({ row }) => row.id),
          )
        ).map((memory) => [memory.id, memory]),
      );
      for (const [name, { row }] of pending) known.memories.set(name, stored.get(row.id)!);
      pending.clear();
    }
    const before = key === undefined ? undefined : known.memories.get(key);
    if (before) {
      try {
        const after = await change(ctx, tx, before, line, update);
        if (after) known.memories.set(key!, after);
        merged[after ? 'updated' : 'unchanged'] += 1;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        fail(line, error.code, error.message);
      }
    } else if (work.options.preserve_ids && known.taken.has(line.row.id)) {
      fail(line, 'ID_TAKEN', 'The id is that of another memory.');
    } else {
      fresh.push(line);
      merged.created += 1;
      if (key !== undefined) pending.set(key, line);
      known.taken.add(line.row.id);
    }
  }
  await storeNew(ctx, asking, work, fresh);
  return merged;
}

/** The memories that lines are about, by owner and source, and the ids that are taken. */
async function knownOf(asking: Asking, lines: ParsedLine[]) {
  const memories = new Map<string, Memory>();
  const named = lines.filter(({ source_id }) => source_id !== undefined);
  if (named.length === 0) return { memories, taken: new Set<string>() };
  const { db } = asking;
  const uuids = named.flatMap(({ source_id }) => (isUuid(source_id!) ? [source_id!.toLowerCase()] : []));
  const taken = new Set((await findTaken(db, uuids)).map(({ id }) => id));
  const sources = await findSources(
    db,
    [...new Set(named.map(({ row }) => row.identity_id))],
    named.map(({ source_id }) => source_id!),
  );
  const bySource = new Map(sources.map((row) => [keyOf(row.identity_id, row.source_id), row.memory_id]));
  const locked = new Map(
    (await lockOpen(asking, [...new Set([...bySource.values(), ...taken])])).map((memory) => [
      memory.id,
      memory,
    ]),
  );
  for (const { row, source_id } of named) {
    const key = keyOf(row.identity_id, source_id!);
    const memory = locked.get(bySource.get(key) ?? '') ?? locked.get(source_id!.toLowerCase());
    if (memory?.identity_id === row.identity_id) memories.set(key, memory);
  }
  return { memories, taken };
}

const lockOpen = async (asking: Asking, ids: string[]): Promise<Memory[]> =>
  ids.length === 0 ? [] : openMemories(asking, await lockKnown(asking.db, ids, new Date()));

/** @returns the memory as it is now, or undefined when the line says what it is already */
async function change(
  ctx: Ctx,
  tx: Db,
  before: Memory,
  { row, saysSensitive }: ParsedLine,
  update: View,
): Promise<Memory | undefined> {
  const { text, type, metadata, session_id, role, occurred_at, ttl_days, expires_at, sensitive } = row;
  const stateOf = (memory: Memory | typeof row) =>
    canonicalJson([
      memory.text,
      memory.type,
      memory.metadata,
      memory.session_id,
      memory.role,
      memory.occurred_at,
      memory.ttl_days,
      memory.expires_at,
      saysSensitive ? memory.sensitive : null,
    ]);
  if (stateOf(before) === stateOf(row)) return undefined;
  requireScope(ctx, 'memory:update');
  if (![before, { ...before, type, metadata }].every((state) => update.sees(targetOf(state))))
    throw forbidden('POLICY_DENIED', 'A policy of your tenant does not allow this.');
  const changes: Changes = {
    text,
    type,
    metadata,
    session_id,
    role,
    occurred_at,
    expiry: { ttl_days, expires_at },
    ...(saysSensitive ? { sensitive } : {}),
  };
  return applyChange(ctx, tx, before, changes, 'imported', new Date());
}

/** Stores lines as memories, with what they were before where the file says so. */
async function storeNew(ctx: Ctx, asking: Asking, work: ImportRow, lines: ParsedLine[]): Promise<void> {
  if (lines.length === 0) return;
  const rows = await sealRows(
    asking,
    lines.map(({ row }) => row),
  );
  const sources = lines.flatMap(({ row, source_id }) =>
    source_id === undefined || source_id === row.id
      ? []
      : [{ identity_id: row.identity_id, source_id, memory_id: row.id }],
  );
  const versions = await versionsOf(asking, lines);
  const memory_ids = rows.map(({ id }) => id);
  await asking.db.batch([
    ...insertMemories(ctx.tenant, rows, ctx.app.vectorTypes),
    ...(sources.length > 0 ? [insertSources(ctx.tenant, sources)] : []),
    ...(versions.length > 0
      ? [insertVersions(ctx.tenant, versions, ctx.actor.identity_id!, work.request_id)]
      : []),
    ...rows.flatMap(({ id, derived_from }) =>
      derived_from ? [insertDerivations(ctx.tenant, derived_from.memory_ids.filter(isUuid), id)] : [],
    ),
    fact(ctx, {
      type: 'memory.bulk_created',
      resource_type: 'memory',
      data: { created_count: rows.length, memory_ids, import_id: work.id },
    }),
  ]);
}

async function versionsOf(asking: Asking, lines: ParsedLine[]): Promise<NewVersion[]> {
  const found: NewVersion[] = [];
  const always = await alwaysSensitive(asking);
  const isSealed = ({ row }: ParsedLine, { type }: { type: string }) => row.sensitive || always.has(type);
  const isAny = lines.some((line) => line.versions.some((version) => isSealed(line, version)));
  const keys = isAny ? await dataKeysOf(asking) : undefined;
  for (const line of lines) {
    const { row } = line;
    for (const version of line.versions) {
      const at = (time: string | null) => (time === null ? null : storedTimestamp(time, '/versions'));
      const sealed = isSealed(line, version)
        ? { text: '', ...sealText(keys!, row.id, version.version, version.text) }
        : { text: version.text, sealed: null, key_id: null };
      found.push({
        ...version,
        ...sealed,
        memory_id: row.id,
        occurred_at: at(version.occurred_at),
        expires_at: at(version.expires_at),
        valid_from: at(version.valid_from)!,
        valid_until: at(version.valid_until)!,
      });
    }
  }
  return found;
}
