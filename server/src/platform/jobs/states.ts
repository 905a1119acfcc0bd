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
