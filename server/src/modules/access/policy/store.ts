import type { Db } from '#platform/db/database.ts';
import { sql } from '#platform/db/sql.ts';
import type { PolicyRow } from './policy-set.ts';

/** The tenant's policies, as far as deciding needs them. */
export const listPolicies = (db: Db): Promise<PolicyRow[]> =>
  db.rows(sql<PolicyRow>`
    select id, role, rule, effect, priority, is_active, code, message
    from policies where tenant_id = ${db.tenant} order by priority desc, id`);
