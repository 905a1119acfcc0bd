import { HASHED_MODEL, hashedEmbedding } from '#modules/knowledge/embeddings/hashed.ts';
import { analyzeDocument } from '#modules/knowledge/retrieval/analyze.ts';
import type { SparseVector } from '#modules/knowledge/retrieval/sparse.ts';
import type { Db } from '#platform/db/database.ts';
import { sql } from '#platform/db/sql.ts';
import { countedAnew, statisticsOf } from '#test/statistics.ts';
import type { Ledger, MemoryEntry, MemoryState } from './ledger.ts';

interface Row {
  tenant_id: string;
  id: string;
  text: string;
  type: string;
  version: number;
  mark: string;
  deleted: boolean;
  words: string;
  trigrams: string;
  waiting: number;
  former: number;
  vectors: { model: string; embedding: string }[];
}

interface FactRow {
  tenant_id: string;
  type: string;
  resource_id: string | null;
  kind: string | null;
  memory_ids: string[] | null;
}

type Tell = (problem: string) => void;

/** Compares every memory of the ledger with its row, vector, place in the queue and facts, and counts all words anew. */
export async function verifyMemories(operator: Db, tenants: string[], ledger: Ledger, tell: Tell) {
  const rows = await operator.rows(sql<Row>`
    select m.tenant_id, m.id, m.text, m.type, m.version, m.metadata->>'mark' as mark, m.deleted_at is not null as deleted,
      m.words::text as words, m.trigrams::text as trigrams,
      (select count(*) from memory_queue q where q.tenant_id = m.tenant_id and q.memory_id = m.id) as waiting,
      (select count(*) from memory_versions v where v.tenant_id = m.tenant_id and v.memory_id = m.id and v.version < m.version)
        as former,
      coalesce((select jsonb_agg(jsonb_build_object('model', v.model, 'embedding', v.embedding::text))
        from memory_vectors v where v.tenant_id = m.tenant_id and v.memory_id = m.id), '[]') as vectors
    from memories m where m.tenant_id = any(${tenants}::text[])`);
  const byMark = Map.groupBy(rows, ({ mark }) => mark);
  const history = historyOf(
    await operator.rows(sql<FactRow>`
      select tenant_id, type, resource_id, data->>'kind' as kind, data->'memory_ids' as memory_ids
      from facts where tenant_id = any(${tenants}::text[]) and type like 'memory.%'`),
  );
  const found = new Map<MemoryEntry, MemoryState>();
  for (const entry of ledger.memories) {
    const own = byMark.get(entry.mark) ?? [];
    byMark.delete(entry.mark);
    if (own.length > 1) tell(`${entry.mark} was stored ${own.length} times`);
    const is = check(entry, own[0], history, tell);
    if (is) found.set(entry, is);
  }
  for (const mark of byMark.keys()) tell(`a memory nobody asked for: ${mark}`);
  for (const entries of ledger.together) sameOutcome(entries, found, tell);
  for (const row of rows) checkMade(row, tell);
  const [strays] = await operator.rows(sql<{ versions: number }>`
    select count(*) as versions from memory_versions v where v.tenant_id = any(${tenants}::text[])
      and not exists (select 1 from memories m where m.tenant_id = v.tenant_id and m.id = v.memory_id)`);
  if (strays!.versions > 0) tell(`${strays!.versions} former versions are of memories that are not there`);
  checkHistory(rows, history, tell);
  await checkCounts(operator, tenants, rows, tell);
  return { memories: rows.length, live: rows.filter(({ deleted }) => !deleted).length };
}

/** Whether an entry is as one of its possible states says. */
function check(entry: MemoryEntry, row: Row | undefined, history: History, tell: Tell) {
  const matches = entry.may.filter((state) => {
    if (state.is === 'absent') return !row && !entry.id;
    if (state.is === 'hard') return !row && entry.id && history.deleted.has(entry.id);
    if (!row || (entry.id && row.id !== entry.id) || row.tenant_id !== entry.tenant) return false;
    if (state.is !== 'live') return row.deleted;
    return (
      !row.deleted && row.text === state.text && row.type === state.type && row.version === state.version
    );
  });
  if (matches.length > 0) return matches[0];
  const shown = row && { id: row.id, text: row.text, version: row.version, deleted: row.deleted };
  tell(`${entry.mark} may be ${JSON.stringify(entry.may)} and is ${JSON.stringify(shown)}`);
  return undefined;
}

/** What was asked for in one request took effect for all of it or for none. */
function sameOutcome(entries: MemoryEntry[], found: Map<MemoryEntry, MemoryState>, tell: Tell): void {
  const outcomes = Map.groupBy(entries, (entry) => entry.may.indexOf(found.get(entry)!));
  if (outcomes.size === 1) return;
  const shown = [...outcomes].map(([outcome, of]) => `${outcome}: ${of.map(({ mark }) => mark)}`);
  tell(`a bulk request was done in part: ${shown.join('; ')}`);
}

/** A live memory has left the queue and has one vector, of its text as it is now; a deleted one has none. */
function checkMade(row: Row, tell: Tell): void {
  if (row.waiting > 0) tell(`memory ${row.id} still waits in the queue`);
  if (row.former !== row.version - 1)
    tell(`memory ${row.id} has version ${row.version} and ${row.former} former ones`);
  if (row.deleted) {
    if (row.vectors.length > 0) tell(`deleted memory ${row.id} has a vector`);
    return;
  }
  const { words, trigrams } = analyzeDocument(row.text);
  if (!sameSparse(row.words, words) || !sameSparse(row.trigrams, trigrams))
    tell(`memory ${row.id} is searched by other words than it has`);
  const [vector] = row.vectors;
  if (row.vectors.length !== 1 || vector!.model !== HASHED_MODEL) {
    tell(`memory ${row.id} has ${row.vectors.length} vectors`);
    return;
  }
  const wanted = hashedEmbedding(row.text);
  const stored = JSON.parse(vector!.embedding) as number[];
  if (!stored.every((value, i) => Math.fround(value) === wanted[i]))
    tell(`memory ${row.id} has the vector of another text`);
}

/** `{index:value,...}/dimensions`, indices from 1. */
export function sameSparse(text: string, vector: SparseVector): boolean {
  const entries = text.slice(1, text.indexOf('}')).split(',').filter(Boolean);
  return (
    entries.length === vector.dimensions.length &&
    entries.every((entry, i) => {
      const [index, value] = entry.split(':');
      return Number(index) === vector.dimensions[i]! + 1 && Math.fround(Number(value)) === vector.values[i];
    })
  );
}

interface History {
  created: Map<string, number>;
  updated: Map<string, number>;
  /** The kinds of deletion that were told. */
  deleted: Map<string, string[]>;
}

function historyOf(facts: FactRow[]): History {
  const history: History = { created: new Map(), updated: new Map(), deleted: new Map() };
  const add = (counts: Map<string, number>, id: string) => counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const { type, resource_id, kind, memory_ids } of facts) {
    if (type === 'memory.bulk_created') for (const id of memory_ids!) add(history.created, id);
    else if (type === 'memory.created') add(history.created, resource_id!);
    else if (type === 'memory.updated') add(history.updated, resource_id!);
    else if (type === 'memory.deleted')
      history.deleted.set(resource_id!, [...(history.deleted.get(resource_id!) ?? []), kind!]);
  }
  return history;
}

/** A row and its facts came and went together. */
function checkHistory(rows: Row[], { created, updated, deleted }: History, tell: Tell): void {
  const known = new Map(rows.map((row) => [row.id, row]));
  for (const { id, version, deleted: gone } of rows) {
    if (created.get(id) !== 1) tell(`memory ${id} has ${created.get(id) ?? 0} facts of its creation`);
    if ((updated.get(id) ?? 0) !== version - 1)
      tell(`memory ${id} has version ${version} and ${updated.get(id) ?? 0} facts of change`);
    const kinds = deleted.get(id) ?? [];
    if (kinds.join() !== (gone ? 'soft_deleted' : ''))
      tell(`memory ${id}, deleted: ${gone}, has facts of deletion: ${kinds}`);
  }
  for (const id of created.keys()) {
    if (!known.has(id) && deleted.get(id)?.join() !== 'hard_deleted')
      tell(`memory ${id} has a fact of creation, no row, and facts of deletion: ${deleted.get(id)}`);
  }
  for (const id of [...updated.keys(), ...deleted.keys()])
    if (!created.has(id)) tell(`memory ${id} has facts and was never created`);
}

async function checkCounts(operator: Db, tenants: string[], rows: Row[], tell: Tell): Promise<void> {
  const texts = Map.groupBy(
    rows.filter(({ deleted }) => !deleted),
    ({ tenant_id }) => tenant_id,
  );
  for (const tenant of tenants)
    await compareCounts(
      operator,
      tenant,
      'memory',
      (texts.get(tenant) ?? []).map(({ text }) => text),
      tell,
    );
}

/** Compares the statistics of a scope with what its texts say when they are counted anew. */
export async function compareCounts(
  operator: Db,
  tenant: string,
  scope: string,
  texts: string[],
  tell: Tell,
): Promise<void> {
  const stored = await statisticsOf(operator, tenant, scope);
  const wanted = countedAnew(texts);
  if (stored.texts !== wanted.texts)
    tell(`${tenant} counts ${stored.texts} of ${wanted.texts} texts in ${scope}`);
  const wrong = [...stored.terms].filter(([term, count]) => wanted.terms.get(term) !== count);
  if (wrong.length > 0)
    tell(
      `${wrong.length} of ${stored.terms.size} term counts of ${tenant} in ${scope} are not what the texts say`,
    );
  const missing = [...wanted.terms.keys()].filter((term) => !stored.terms.has(term));
  if (missing.length > 0) tell(`${missing.length} terms of ${tenant} in ${scope} are not counted at all`);
}
