import type { App } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { sql } from '#platform/db/sql.ts';
import type { Ledger } from './ledger.ts';
import { verifyDocuments } from './verify-documents.ts';
import { verifyMemories } from './verify-memories.ts';

/** Jobs by what became of them, and how long they took from when they were made. */
export interface JobReport {
  name: string;
  state: string;
  jobs: number;
  retried: number;
  most_retries: number;
  longest_s: number;
}

export interface Verified {
  problems: string[];
  figures: Record<string, unknown>;
}

/** Whether nothing is left to do: no fact without a number or a job, no text in a queue, no job on its way. */
export async function leftToDo(operator: Db): Promise<Record<string, number>> {
  const row = await operator.one(sql<Record<string, number>>`
    select (select count(*) from facts where seq is null) as unnumbered,
      (select count(*) from fact_positions where relayed < numbered) as unrelayed,
      (select count(*) from memory_queue) as memories,
      (select count(*) from documents where status in ('queued', 'processing')) as documents,
      (select count(*) from corpora where deleted_at is not null) as corpora,
      (select count(*) from pgboss.job where state in ('created', 'active', 'retry')) as jobs`);
  return Object.fromEntries(Object.entries(row!).filter(([, left]) => left > 0));
}

/** Compares the database with what clients were told. The work must have come to rest. */
export async function verify(app: App, tenants: string[], ledger: Ledger): Promise<Verified> {
  const { operator } = app.database;
  const problems = [...ledger.problems];
  const tell = (problem: string) => void problems.push(problem);
  const memories = await verifyMemories(operator, tenants, ledger, tell);
  const documents = await verifyDocuments(operator, tenants, ledger, tell);
  await verifyFacts(operator, tell);
  await verifyKeys(operator, tenants, ledger, tell);
  await verifyIdentities(operator, tenants, ledger, tell);
  const jobs = await verifyJobs(operator, tell);
  return { problems, figures: { ...memories, ...documents, ...ledger.counts, jobs } };
}

async function verifyFacts(operator: Db, tell: (problem: string) => void): Promise<void> {
  const tenants = await operator.rows(sql<Record<string, number> & { tenant_id: string }>`
    select f.tenant_id, count(*) as facts, count(seq) as numbered, min(seq) as first, max(seq) as last,
      count(distinct seq) as numbers, max(p.numbered) as given, max(p.relayed) as relayed
    from facts f left join fact_positions p using (tenant_id) group by f.tenant_id`);
  for (const { tenant_id, facts, numbered, first, last, numbers, given, relayed } of tenants) {
    const gapless = numbered === facts && first === 1 && last === facts && numbers === facts;
    if (!gapless) tell(`${tenant_id}: ${facts} facts have ${numbers} numbers from ${first} to ${last}`);
    if (given !== facts || relayed !== facts)
      tell(`${tenant_id}: ${facts} facts, numbered to ${given}, relayed to ${relayed}`);
  }
}

/** One row a key; each with its answer, none with a claim that nobody holds. */
async function verifyKeys(
  operator: Db,
  tenants: string[],
  ledger: Ledger,
  tell: (problem: string) => void,
): Promise<void> {
  const rows = await operator.rows(sql<{ tenant_id: string; key: string; status: number | null }>`
    select tenant_id, key, status from idempotency_keys where tenant_id = any(${tenants}::text[])`);
  const byKey = Map.groupBy(rows, ({ tenant_id, key }) => `${tenant_id} ${key}`);
  for (const { tenant, key, answer } of ledger.keys) {
    const own = byKey.get(`${tenant} ${key}`) ?? [];
    if (answer && (own.length !== 1 || own[0]!.status !== answer.status))
      tell(`key ${key} was answered ${answer.status} and is stored as ${JSON.stringify(own)}`);
  }
  const open = rows.filter(({ status }) => status === null);
  if (open.length > 0) tell(`${open.length} keys are claimed by nobody: ${open.map(({ key }) => key)}`);
}

async function verifyIdentities(
  operator: Db,
  tenants: string[],
  ledger: Ledger,
  tell: (problem: string) => void,
): Promise<void> {
  const rows = await operator.rows(sql<{ external_id: string; sessions: number; facts: number }>`
    select i.external_id, (select count(*) from sessions s where s.tenant_id = i.tenant_id and s.identity_id = i.id) as sessions,
      (select count(*) from facts f where f.tenant_id = i.tenant_id and f.resource_id = i.id::text and f.type = 'identity.created') as facts
    from identities i where i.tenant_id = any(${tenants}::text[])`);
  const stored = Map.groupBy(rows, ({ external_id }) => external_id);
  for (const { external_id, acknowledged } of ledger.identities) {
    const own = stored.get(external_id) ?? [];
    if (own.length > 1 || (acknowledged && own.length === 0))
      tell(`identity ${external_id}, acknowledged: ${acknowledged}, is there ${own.length} times`);
  }
  for (const { external_id, sessions, facts } of rows)
    if (sessions !== 1 || facts !== 1)
      tell(`identity ${external_id} has ${sessions} sessions and ${facts} facts of its creation`);
}

async function verifyJobs(operator: Db, tell: (problem: string) => void): Promise<JobReport[]> {
  const jobs = await operator.rows(sql<JobReport>`
    select name, state::text as state, count(*) as jobs, count(*) filter (where retry_count > 0) as retried,
      max(retry_count) as most_retries,
      round(max(extract(epoch from completed_on - created_on))::numeric, 1) as longest_s
    from pgboss.job group by name, state order by name, state`);
  for (const { name, state, jobs: number } of jobs)
    if (state !== 'completed') tell(`${number} jobs ${name} are ${state}`);
  return jobs;
}
