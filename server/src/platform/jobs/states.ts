import type { App } from '../context.ts';
import { sql } from '../db/sql.ts';

/**
 * What has become of jobs: `living` ones wait or are worked on, `ended` ones will not be worked on any more. A job the
 * queue does not know (not made yet, or removed long after its end) is not in the map.
 */
export async function jobStates(
  app: App,
  name: string,
  ids: string[],
): Promise<Map<string, 'living' | 'ended'>> {
  if (ids.length === 0) return new Map();
  const rows = await app.database.operator.rows<{ id: string; living: boolean }>(sql`
    select id, state::text in ('created', 'retry', 'active') as living from pgboss.job
    where name = ${name} and id = any(${ids}::uuid[])`);
  return new Map(rows.map(({ id, living }) => [id, living ? 'living' : 'ended']));
}

/** Which of these queues have a job that may be begun now. */
export async function queuesWithWork(app: App, names: string[]): Promise<string[]> {
  const rows = await app.database.operator.rows<{ name: string }>(sql`
    select q.name from unnest(${names}::text[]) as q (name)
    where exists (
      select 1 from pgboss.job_common j
      where j.name = q.name and j.state < 'active' and not j.blocked and j.start_after <= pgboss.job_now()
    )`);
  return rows.map(({ name }) => name);
}
