import type { Db } from '#platform/db/database.ts';
import { sql } from '#platform/db/sql.ts';
import type { PolicyRow } from './policy-set.ts';

/** The tenant's policies in force. */
export const listActivePolicies = (db: Db): Promise<PolicyRow[]> =>
  db.rows(sql<PolicyRow>`
    select id, role, rule, effect, priority, is_active, code, message
    from policies where tenant_id = ${db.tenant} and is_active order by priority desc, id`);
