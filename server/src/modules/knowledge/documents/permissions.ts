import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { ApiError, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { type PageQuery, page, positionOf } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { authorize, requireScope } from '#platform/permission.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { isActiveIdentity, rolePattern } from '../../access/identity/service.ts';
import { isAdmin, maySeePermissions, principalsOf, requireOwner } from './access.ts';
import { deletePermission, listPermissions, upsertPermission } from './permission-store.ts';
import type { DocumentPermission, PermissionCreate } from './schema.ts';
import { type DocumentRow, findDocument, lockDocument } from './store.ts';
import { targetOf } from './visible.ts';

const shown = async (ctx: Ctx, document: DocumentRow | undefined): Promise<DocumentRow> => {
  if (!isAdmin(ctx)) requireScope(ctx, 'documents:read');
  if (!document || !(await maySeePermissions(ctx, document))) throw notFound('Document');
  await authorize(ctx, 'documents:share', targetOf(document));
  requireOwner(ctx, document);
  return document;
};

/** Who holds which permission of a document, oldest first. @throws ApiError 403 AUTHZ_DENIED, 404 */
export async function listDocumentPermissions(ctx: Ctx, id: string, query: PageQuery): Promise<Answer> {
  const list = `documents:share ${id}`;
  const limit = query.limit ?? 25;
  const after = positionOf(ctx, list, {}, query.cursor);
  await shown(ctx, await findDocument(ctx.db, id, principalsOf(ctx)));
  const rows = await listPermissions(ctx.db, id, {
    ...(after ? { after } : {}),
    skip: query.skip ?? 0,
    limit,
  });
  return page(ctx, list, {}, rows, limit, (row) => [row.created_at, row.id]);
}

/**
 * Gives somebody a permission of a document; one that is there gets the new end.
 * @throws ApiError 403 AUTHZ_DENIED, 404, 422
 */
export async function grantPermission(
  ctx: Ctx,
  documentId: string,
  input: PermissionCreate,
): Promise<DocumentPermission> {
  const now = new Date();
  return ctx.db.transaction(async (tx) => {
    const [document] = await tx.rows(lockDocument(ctx.tenant, documentId, principalsOf(ctx)));
    await shown(ctx, document);
    const row: DocumentPermission = {
      id: uuidv7(),
      tenant_id: ctx.tenant,
      document_id: documentId,
      principal_type: input.principal_type,
      principal_id: await checkedPrincipal(tx, input),
      permission: input.permission,
      granted_by: ctx.actor.identity_id ?? null,
      expires_at: expiryOf(input.expires_at, now),
      created_at: now.toISOString(),
    };
    const [granted] = await tx.rows(upsertPermission(row));
    await tx.run(aboutGrant(ctx, 'documents.permission.granted', granted!));
    return granted!;
  });
}

/** Takes a permission back; it is answered as it was. @throws ApiError 403 AUTHZ_DENIED, 404, 404 AUTHZ_PERMISSION_NOT_FOUND */
export async function revokePermission(
  ctx: Ctx,
  documentId: string,
  id: string,
): Promise<DocumentPermission> {
  return ctx.db.transaction(async (tx) => {
    const [document] = await tx.rows(lockDocument(ctx.tenant, documentId, principalsOf(ctx)));
    await shown(ctx, document);
    const [revoked] = isUuid(id) ? await tx.rows(deletePermission(ctx.tenant, documentId, id)) : [];
    if (!revoked) {
      throw new ApiError(404, 'AUTHZ_PERMISSION_NOT_FOUND', 'The document has no permission with this id.');
    }
    await tx.run(aboutGrant(ctx, 'documents.permission.revoked', revoked));
    return revoked;
  });
}

const aboutGrant = (ctx: Ctx, type: string, granted: DocumentPermission) => {
  const { id, principal_type, principal_id, permission, expires_at } = granted;
  return fact(ctx, {
    type,
    resource_type: 'document',
    resource_id: granted.document_id,
    data: { permission_id: id, principal_type, principal_id, permission, expires_at },
  });
};

/** @throws ApiError 422 for a principal that is not there; one of another tenant is not there */
async function checkedPrincipal(tx: Db, { principal_type, principal_id }: PermissionCreate): Promise<string> {
  const wrong = (message: string) => invalid([{ path: '/principal_id', message }]);
  if (principal_type === 'role') {
    if (!new RegExp(rolePattern).test(principal_id)) throw wrong('must be the name of a role');
    return principal_id;
  }
  const id = principal_id.toLowerCase();
  if (!isUuid(id))
    throw wrong(`must be the id of ${principal_type === 'user' ? 'an identity' : 'an API key'}`);
  if (principal_type === 'user' && !(await isActiveIdentity(tx, id)))
    throw wrong('is not an active identity of this tenant');
  return id;
}

function expiryOf(given: string | null | undefined, now: Date): string | null {
  if (given == null) return null;
  const expires = storedTimestamp(given, '/expires_at');
  if (Date.parse(expires) <= now.getTime())
    throw invalid([{ path: '/expires_at', message: 'must be in the future' }]);
  return expires;
}
