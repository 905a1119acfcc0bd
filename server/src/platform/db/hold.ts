import type { Db } from './database.ts';
import type { Database } from './open.ts';
import { sql } from './sql.ts';

/**
 * Holds what is counted for a whole tenant still until the transaction ends. References to the tenant by new rows are not
 * held up. Where a transaction locks more than the tenant, this comes first.
 */
export const holdTenant = async (tx: Db): Promise<void> =>
  void (await tx.run(sql`select 1 from tenants where tenant_id = ${tx.tenant} for no key update`));

/**
 * Does what one process at most is to do at a time, and nothing while another does it. A process that dies lets go. The
 * embedded database has one process.
 * @returns whether it was done
 */
export async function whileAlone(
  { operatorPool }: Database,
  what: string,
  work: () => Promise<void>,
): Promise<boolean> {
  const client = await operatorPool.connect();
  let lost = true;
  try {
    const { rows } = await client.query('select pg_try_advisory_lock(hashtextextended($1, 0)) as held', [
      what,
    ]);
    const [{ held }] = rows as [{ held: boolean }];
    try {
      if (held) await work();
    } finally {
      if (held) await client.query('select pg_advisory_unlock(hashtextextended($1, 0))', [what]);
    }
    lost = false;
    return held;
  } finally {
    client.release(lost);
  }
}
