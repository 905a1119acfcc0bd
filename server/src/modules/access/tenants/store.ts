import type { Plan } from '#platform/config.ts';
import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { TenantResource } from './schema.ts';

export interface Tenant {
  tenant_id: string;
  name: string;
  plan: Plan | null;
  is_active: boolean;
  created_at: string;
}

const columns = sql`tenant_id as id, name, plan, is_active, created_at, updated_at, deleted_at`;

/** Answers the row, or nothing when the id is taken. */
export const insertTenant = (
  tenantId: string,
  name: string,
  plan: Plan | null,
  now: Date,
): Statement<TenantResource> => sql<TenantResource>`
  insert into tenants (tenant_id, name, plan, created_at, updated_at)
  values (${tenantId}, ${name}, ${plan}, ${now}, ${now})
  on conflict (tenant_id) do nothing returning ${columns}`;

export const findTenant = (db: Db, tenantId: string): Promise<Tenant | undefined> =>
  db.one(
    sql<Tenant>`select tenant_id, name, plan, is_active, created_at from tenants where tenant_id = ${tenantId}`,
  );

export const findTenantResource = (db: Db): Promise<TenantResource | undefined> =>
  db.one(sql<TenantResource>`select ${columns} from tenants where tenant_id = ${db.tenant}`);

/** The row, kept from changing until the transaction ends. References to it by new rows are not held up. */
export const lockTenantRow = (tx: Db): Promise<TenantResource | undefined> =>
  tx.one(
    sql<TenantResource>`select ${columns} from tenants where tenant_id = ${tx.tenant} for no key update`,
  );

export const updateTenant = (tenant: TenantResource): Statement => sql`
  update tenants set name = ${tenant.name}, plan = ${tenant.plan}, is_active = ${tenant.is_active}, updated_at = ${tenant.updated_at}
  where tenant_id = ${tenant.id}`;

/** Marks a tenant, that is not active, as one whose everything is to be removed; for the operator. Answers it as it was marked first. */
export const markTenantDeleted = (
  tenant: string,
  now: Date,
): Statement<TenantResource> => sql<TenantResource>`
  update tenants set deleted_at = coalesce(deleted_at, ${now}) where tenant_id = ${tenant} and not is_active
  returning ${columns}`;

export interface DeletedTenant {
  id: string;
  deleted_at: string;
}

/** Tenants whose everything is to be removed, those that were deleted first before the others. */
export const listDeletedTenants = (operator: Db): Promise<DeletedTenant[]> =>
  operator.rows(sql<DeletedTenant>`
    select tenant_id as id, deleted_at from tenants where deleted_at is not null order by deleted_at limit 100`);

export const deleteTenantRow = (tenant: string): Statement<{ id: string }> => sql<{ id: string }>`
  delete from tenants where tenant_id = ${tenant} and deleted_at is not null returning tenant_id as id`;

export const listAllTenants = (operator: Db): Promise<Tenant[]> =>
  operator.rows(
    sql<Tenant>`select tenant_id, name, plan, is_active, created_at from tenants order by tenant_id`,
  );

/** Tenants after an id, in the order of their ids; one row more than `limit` when there are more. */
export const listTenantsAfter = (
  operator: Db,
  after: string,
  except: string,
  limit: number,
): Promise<TenantResource[]> =>
  operator.rows(sql<TenantResource>`
    select ${columns} from tenants where tenant_id > ${after} and tenant_id <> ${except} order by tenant_id limit ${limit + 1}`);
