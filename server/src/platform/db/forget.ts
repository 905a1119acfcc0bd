import type { Database } from './open.ts';
import { dropSegmentTable, segmentTableName } from './segment-tables.ts';

interface TenantTable {
  name: string;
  /** Columns of the primary key after the tenant. */
  key: string[];
}

/** Rows removed by one statement, so that none holds up others for long. */
const batch = 5_000;

/**
 * Removes a tenant's rows from every table that the catalogue knows, except `tenants`: tables made by later migrations as
 * well. Killed anywhere, it is begun again.
 * @returns how many rows there were, jobs at work included
 */
export async function forgetTenantRows(
  database: Database,
  tenant: string,
  signal: AbortSignal,
): Promise<number> {
  const { operatorPool } = database;
  const { rows: segments } = await operatorPool.query('select id from vector_segments where tenant_id = $1', [
    tenant,
  ]);
  for (const { id } of segments) await dropSegmentTable(database, segmentTableName(id));
  let removed = 0;
  for (const table of await tenantTables(database)) {
    for (let count = batch; count === batch; ) {
      signal.throwIfAborted();
      ({ rowCount: count } = (await operatorPool.query(removal(table), [tenant])) as { rowCount: number });
      removed += count;
    }
  }
  return removed + (await forgetJobs(database, tenant));
}

function removal({ name, key }: TenantTable): string {
  if (key.length === 0) return `delete from ${name} where tenant_id = $1`;
  const columns = key.join(', ');
  return `delete from ${name} where tenant_id = $1 and (${columns}) in (
    select ${columns} from ${name} where tenant_id = $1 limit ${batch})`;
}

/** Tables with a tenant, those that refer to others first. */
async function tenantTables({ operatorPool }: Database): Promise<TenantTable[]> {
  const { rows: tables } = await operatorPool.query<TenantTable>(`
    select quote_ident(t.relname) as name,
      coalesce((
        select array_agg(quote_ident(k.attname) order by k.attnum) from pg_index i
        join pg_attribute k on k.attrelid = t.oid and k.attnum = any(i.indkey)
        where i.indrelid = t.oid and i.indisprimary and k.attname <> 'tenant_id'), '{}'::text[]) as key
    from pg_class t
    join pg_namespace n on n.oid = t.relnamespace and n.nspname = 'public'
    join pg_attribute a on a.attrelid = t.oid and a.attname = 'tenant_id' and not a.attisdropped
    where t.relkind in ('r', 'p') and t.relname <> 'tenants' and t.relname !~ '^segment_[0-9a-f]{32}' order by 1`);
  const { rows: references } = await operatorPool.query<{ from: string; to: string }>(`
    select distinct quote_ident(f.relname) as from, quote_ident(t.relname) as to from pg_constraint c
    join pg_class f on f.oid = c.conrelid join pg_class t on t.oid = c.confrelid
    where c.contype = 'f' and c.conrelid <> c.confrelid`);
  const ordered: TenantTable[] = [];
  const visit = (table: TenantTable) => {
    if (ordered.includes(table)) return;
    const referring = references.filter(({ to }) => to === table.name).map(({ from }) => from);
    for (const other of tables) if (referring.includes(other.name)) visit(other);
    ordered.push(table);
  };
  for (const table of tables) visit(table);
  return ordered;
}

/** Removes a tenant's jobs from the queue, where there is one. Those at work end by themselves: they are counted, and found next time. */
async function forgetJobs({ operatorPool }: Database, tenant: string): Promise<number> {
  const { rows } = await operatorPool.query(`select to_regclass('pgboss.job') is not null as known`);
  if (!rows[0].known) return 0;
  const {
    rows: [jobs],
  } = await operatorPool.query<{ count: number }>(
    `with removed as (
      delete from pgboss.job where data ->> 'tenant_id' = $1 and state <> 'active' returning 1)
    select ((select count(*) from removed)
      + (select count(*) from pgboss.job where data ->> 'tenant_id' = $1 and state = 'active'))::int as count`,
    [tenant],
  );
  return jobs!.count;
}
