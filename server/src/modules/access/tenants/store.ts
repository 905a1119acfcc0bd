import type { Plan } from '#platform/config.ts';
import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

export interface Tenant {
  tenant_id: string;
  name: string;
  plan: Plan | null;
  is_active: boolean;
  created_at: string;
}

export const insertTenant = (tenantId: string, name: string, now: Date): Statement<{ tenant_id: string }> =>
  sql<{ tenant_id: string }>`
    insert into tenants (tenant_id, name, created_at, updated_at) values (${tenantId}, ${name}, ${now}, ${now})
    on conflict (tenant_id) do nothing returning tenant_id`;

export const findTenant = (db: Db, tenantId: string): Promise<Tenant | undefined> =>
  db.one(
    sql<Tenant>`select tenant_id, name, plan, is_active, created_at from tenants where tenant_id = ${tenantId}`,
  );

export const listAllTenants = (operator: Db): Promise<Tenant[]> =>
  operator.rows(
    sql<Tenant>`select tenant_id, name, plan, is_active, created_at from tenants order by tenant_id`,
  );
