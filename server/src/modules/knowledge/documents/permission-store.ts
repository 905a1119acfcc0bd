import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import type { DocumentPermission } from './schema.ts';

/** Who asks, as grants name it. */
export interface Principals {
  user: string | null;
  role: string;
  api_key: string | null;
  /** Needs no grant of restricted documents. */
  all: boolean;
  now: Date;
}

/** Of a row `p` of document_permissions: it belongs to the document at hand, holds now, and is for `who`. */
export const granted = ({ user, role, api_key, now }: Principals): Statement => sql`
  p.tenant_id = documents.tenant_id and p.document_id = documents.id and (p.expires_at is null or p.expires_at > ${now})
    and ((p.principal_type = 'user' and p.principal_id = ${user}) or (p.principal_type = 'role' and p.principal_id = ${role})
      or (p.principal_type = 'api_key' and p.principal_id = ${api_key}))`;

/** Answers the grant as it is now: a new one, or the one that was there, with its new end. */
export const upsertPermission = (row: DocumentPermission): Statement<DocumentPermission> =>
  sql<DocumentPermission>`
    insert into document_permissions as known (tenant_id, document_id, id, principal_type, principal_id, permission, granted_by,
      expires_at, created_at)
    values (${row.tenant_id}, ${row.document_id}, ${row.id}, ${row.principal_type}, ${row.principal_id}, ${row.permission},
      ${row.granted_by}, ${row.expires_at}, ${row.created_at})
    on conflict (tenant_id, document_id, principal_type, principal_id, permission)
      do update set expires_at = excluded.expires_at, granted_by = excluded.granted_by
    returning id, tenant_id, document_id, principal_type, principal_id, permission, granted_by, expires_at, created_at`;

/** Oldest first; one row more than `limit` when there are more. */
export const listPermissions = (
  db: Db,
  documentId: string,
  { after, skip, limit }: PageFrom,
): Promise<DocumentPermission[]> =>
  db.rows(sql<DocumentPermission>`
    select id, tenant_id, document_id, principal_type, principal_id, permission, granted_by, expires_at, created_at
    from document_permissions
    where tenant_id = ${db.tenant} and document_id = ${documentId}
      and (${after?.[0]}::timestamptz is null or (created_at, id) > (${after?.[0]}::timestamptz, ${after?.[1]}::uuid))
    order by created_at, id limit ${limit + 1} offset ${skip}`);

export const deletePermission = (
  tenant: string,
  documentId: string,
  id: string,
): Statement<DocumentPermission> =>
  sql<DocumentPermission>`
    delete from document_permissions where tenant_id = ${tenant} and document_id = ${documentId} and id = ${id}
    returning id, tenant_id, document_id, principal_type, principal_id, permission, granted_by, expires_at, created_at`;

/** Takes an identity out of the grants: those it holds go, those it gave stay. */
export const forgetGrantee = (tenant: string, identityId: string): Statement[] => [
  sql`
    delete from document_permissions
    where tenant_id = ${tenant} and principal_type = 'user' and principal_id = ${identityId}`,
  sql`update document_permissions set granted_by = null where tenant_id = ${tenant} and granted_by = ${identityId}`,
];

/** All grants of a document, which leave with it. */
export const deletePermissions = (tenant: string, documentId: string): Statement =>
  sql`delete from document_permissions where tenant_id = ${tenant} and document_id = ${documentId}`;
