import type { Db } from './database.ts';
import { sql } from './sql.ts';

/**
 * Holds what is counted for a whole tenant still until the transaction ends. References to the tenant by new rows are not
 * held up. Where a transaction locks more than the tenant, this comes first.
 */
export const holdTenant = async (tx: Db): Promise<void> =>
  void (await tx.run(sql`select 1 from tenants where tenant_id = ${tx.tenant} for no key update`));
