import { type Ctx, inTransaction } from '#platform/context.ts';
import { holdTenant } from '#platform/db/hold.ts';
import { ApiError, forbidden, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { isUuid } from '#platform/ids.ts';
import { authorize, isPermitted, requireScope } from '#platform/permission.ts';
import { checkRank, keepAnAdmin } from './change.ts';
import type { Identity, IdentityBulkDelete, IdentityBulkDeleted } from './schema.ts';
import { type EndCredentials, identitiesChanged, targetOf } from './service.ts';
import { deactivateIdentities, deleteIdentities, lockIdentities } from './store.ts';

/**
 * Deletes one identity: it stops working at once; with `hard` it is removed, and what it remembered follows.
 * @throws ApiError 403, 404, 409 LAST_ADMIN
 */
export async function removeIdentity(
  ctx: Ctx,
  id: string,
  hard: boolean,
  endings: EndCredentials[],
): Promise<{ message: string }> {
  const removed = await removeIdentities(ctx, { identity_ids: [id], hard_delete: hard }, endings);
  const [failure] = removed.failures;
  if (failure) throw failure.error;
  return { message: 'Identity deleted successfully' };
}

/** Deletes those of these identities that the caller may delete, and says what kept it from the others. */
export async function bulkDelete(
  ctx: Ctx,
  input: IdentityBulkDelete,
  endings: EndCredentials[],
): Promise<IdentityBulkDeleted> {
  const { deleted, failures } = await removeIdentities(ctx, input, endings);
  return {
    deleted_count: deleted.length,
    failed_count: failures.length,
    failed_identities: failures.map(({ id, error, external_id }) => ({
      identity_id: id,
      error: error.message,
      ...(external_id === undefined ? {} : { external_id }),
    })),
    message: `Bulk delete completed: ${deleted.length} deleted, ${failures.length} failed`,
  };
}

interface Failure {
  id: string;
  error: ApiError;
  external_id?: string;
}

/** Deletes identities in one transaction; each that may not be deleted fails alone. */
async function removeIdentities(
  ctx: Ctx,
  { identity_ids, hard_delete: hard = false, reason }: IdentityBulkDelete,
  endings: EndCredentials[],
): Promise<{ deleted: string[]; failures: Failure[] }> {
  requireScope(ctx, 'identity:read');
  const wanted = [...new Set(identity_ids.map((id) => id.toLowerCase()))];
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    await holdTenant(tx);
    const found = new Map((await lockIdentities(tx, wanted.filter(isUuid))).map((row) => [row.id, row]));
    const failures: Failure[] = [];
    const deleted: Identity[] = [];
    for (const id of wanted) {
      const row = found.get(id);
      try {
        await checkRemoval(ctx, row, hard);
        await keepAnAdmin(tx, [...deleted, row!]);
        deleted.push(row!);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        failures.push({ id, error, ...(error.status === 404 ? {} : { external_id: row!.external_id }) });
      }
    }
    const ids = deleted.map(({ id }) => id);
    if (ids.length === 0) return { deleted: ids, failures };
    const inside = inTransaction(ctx, tx);
    for (const end of endings) await end(inside, ids);
    await tx.batch([
      ...(hard ? deleteIdentities(ctx.tenant, ids, now) : [deactivateIdentities(ctx.tenant, ids, now)]),
      ...deleted.map(({ id, role, external_id }) =>
        fact(ctx, {
          type: 'identity.deleted',
          resource_type: 'identity',
          resource_id: id,
          before: { role, external_id },
          data: { kind: hard ? 'hard_deleted' : 'soft_deleted', ...(reason ? { reason } : {}) },
        }),
      ),
    ]);
    identitiesChanged(inside, ids);
    return { deleted: ids, failures };
  });
}

/** What was deleted softly is gone for whoever deletes softly again. */
async function checkRemoval(ctx: Ctx, row: Identity | undefined, hard: boolean): Promise<void> {
  const gone = !row || (!row.is_active && !hard);
  if (gone || !(await isPermitted(ctx, 'identity:read', targetOf(row)))) throw notFound('Identity');
  if (row.id === ctx.actor.identity_id) throw forbidden('AUTH_FORBIDDEN', 'Cannot delete own identity');
  await authorize(ctx, 'identity:delete', targetOf(row));
  checkRank(ctx, row);
}
