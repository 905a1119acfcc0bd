import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';

/** A provider as it is stored. */
export interface ProviderRow {
  tenant_id: string;
  id: string;
  name: string;
  issuer: string;
  client_id: string;
  client_secret: Buffer | null;
  scopes: string[];
  default_role: string;
  allowed_email_domains: string[];
  jit_enabled: boolean;
  role_claim: string | null;
  role_mapping: { value: string; role: string }[];
  enabled: boolean;
  created_at: string;
  updated_at: string;
}

const columns = sql`tenant_id, id, name, issuer, client_id, client_secret, scopes, default_role, allowed_email_domains,
  jit_enabled, role_claim, role_mapping, enabled, created_at, updated_at`;

/** Answers the row, or nothing when the id is taken. */
export const insertProvider = (row: ProviderRow): Statement<ProviderRow> => sql<ProviderRow>`
  insert into identity_providers (tenant_id, id, name, issuer, client_id, client_secret, scopes, default_role,
    allowed_email_domains, jit_enabled, role_claim, role_mapping, enabled, created_at, updated_at)
  values (${row.tenant_id}, ${row.id}, ${row.name}, ${row.issuer}, ${row.client_id}, ${row.client_secret},
    ${JSON.stringify(row.scopes)}, ${row.default_role}, ${JSON.stringify(row.allowed_email_domains)}, ${row.jit_enabled},
    ${row.role_claim}, ${JSON.stringify(row.role_mapping)}, ${row.enabled}, ${row.created_at}, ${row.updated_at})
  on conflict (tenant_id, id) do nothing returning ${columns}`;

export const updateProvider = (row: ProviderRow): Statement<ProviderRow> => sql<ProviderRow>`
  update identity_providers set name = ${row.name}, issuer = ${row.issuer}, client_id = ${row.client_id},
    client_secret = ${row.client_secret}, scopes = ${JSON.stringify(row.scopes)}, default_role = ${row.default_role},
    allowed_email_domains = ${JSON.stringify(row.allowed_email_domains)}, jit_enabled = ${row.jit_enabled},
    role_claim = ${row.role_claim}, role_mapping = ${JSON.stringify(row.role_mapping)}, enabled = ${row.enabled},
    updated_at = ${row.updated_at}
  where tenant_id = ${row.tenant_id} and id = ${row.id} returning ${columns}`;

export const findProvider = (db: Db, id: string): Promise<ProviderRow | undefined> =>
  db.one(
    sql<ProviderRow>`select ${columns} from identity_providers where tenant_id = ${db.tenant} and id = ${id}`,
  );

export const lockProvider = (tenant: string, id: string): Statement<ProviderRow> => sql<ProviderRow>`
  select ${columns} from identity_providers where tenant_id = ${tenant} and id = ${id} for update`;

/** The provider when people may sign in by it now: it is enabled, and so is its tenant. */
export const findOpenProvider = (db: Db, id: string): Promise<ProviderRow | undefined> =>
  db.one(sql<ProviderRow>`
    select p.tenant_id, p.id, p.name, p.issuer, p.client_id, p.client_secret, p.scopes, p.default_role,
      p.allowed_email_domains, p.jit_enabled, p.role_claim, p.role_mapping, p.enabled, p.created_at, p.updated_at
    from identity_providers p join tenants t on t.tenant_id = p.tenant_id
    where p.tenant_id = ${db.tenant} and p.id = ${id} and p.enabled and t.is_active`);

/** Newest first; one row more than `limit` when there are more. */
export const listProviders = (db: Db, { after, skip, limit }: PageFrom): Promise<ProviderRow[]> =>
  db.rows(sql<ProviderRow>`
    select ${columns} from identity_providers
    where tenant_id = ${db.tenant}
      and (${after?.[0]}::timestamptz is null or (created_at, id) < (${after?.[0]}::timestamptz, ${after?.[1]}::text))
    order by created_at desc, id desc limit ${limit + 1} offset ${skip}`);

export const deleteProvider = (tenant: string, id: string): Statement<{ id: string }> => sql<{ id: string }>`
  delete from identity_providers where tenant_id = ${tenant} and id = ${id} returning id`;
