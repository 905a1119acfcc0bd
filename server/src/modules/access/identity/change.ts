import { type Ctx, inTransaction } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { holdTenant } from '#platform/db/hold.ts';
import { conflict, forbidden, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { isUuid } from '#platform/ids.ts';
import { authorize, isPermitted, requireScope } from '#platform/permission.ts';
import { mayGiveRole } from '../policy/service.ts';
import type { Identity, IdentityUpdate } from './schema.ts';
import { checkOwner, type EndCredentials, identitiesChanged, targetOf } from './service.ts';
import { lockActiveOfRole, lockIdentities, updateIdentity } from './store.ts';

/** What decides what somebody may do: only who may assign it changes it, for itself too. */
const assigned = ['external_id', 'role', 'claims', 'owner_id', 'is_active'] as const;

/**
 * Changes an identity. Everybody may change its own name and description; role, claims, owner and activity need
 * `identity:assign`, and nobody changes its own role or shuts itself out. With activity its credentials end for good: who
 * is activated again signs in again.
 * @throws ApiError 403, 404, 409 IDENTITY_EXISTS or LAST_ADMIN, 422
 */
export async function changeIdentity(
  ctx: Ctx,
  id: string,
  input: IdentityUpdate,
  endings: EndCredentials[],
): Promise<Identity> {
  requireScope(ctx, 'identity:read');
  await checkOwner(ctx, input.owner_id);
  return ctx.db.transaction(async (tx) => {
    const inside = inTransaction(ctx, tx);
    if (input.role !== undefined || input.is_active !== undefined) await holdTenant(tx);
    const [before] = isUuid(id) ? await lockIdentities(tx, [id]) : [];
    if (!before || !(await isPermitted(ctx, 'identity:read', targetOf(before)))) throw notFound('Identity');
    const row: Identity = { ...before, ...input, updated_at: new Date().toISOString() };
    await checkChange(inside, before, row);
    const changed = (Object.keys(input) as (keyof IdentityUpdate)[]).filter(
      (field) => JSON.stringify(row[field]) !== JSON.stringify(before[field]),
    );
    if (changed.length === 0) return before;
    const after = await tx.one(updateIdentity(row)).catch((error) => {
      throw error?.code === '23505' ? taken() : error;
    });
    await tx.run(
      fact(ctx, {
        type: typeOf(before, row),
        resource_type: 'identity',
        resource_id: before.id,
        before: shownIn(before),
        after: shownIn(row),
        data: { changed },
      }),
    );
    if (before.is_active && !row.is_active) for (const end of endings) await end(inside, [before.id]);
    identitiesChanged(inside, [before.id]);
    return after!;
  });
}

const taken = () => conflict('IDENTITY_EXISTS', 'An identity with this external_id exists in your tenant.');

/** Claims may hold anything about a person: a fact only names them. */
const shownIn = ({ external_id, role, is_active, owner_id, claims }: Identity) => ({
  external_id,
  role,
  is_active,
  owner_id,
  claim_names: Object.keys(claims),
});

const typeOf = (before: Identity, after: Identity): string => {
  if (before.is_active === after.is_active) return 'identity.updated';
  return after.is_active ? 'identity.activated' : 'identity.deactivated';
};

async function checkChange(ctx: Ctx, before: Identity, after: Identity): Promise<void> {
  const target = targetOf(before);
  await authorize(ctx, 'identity:update', target);
  const changes = (field: keyof Identity) => JSON.stringify(before[field]) !== JSON.stringify(after[field]);
  if (!assigned.some(changes)) return;
  await authorize(ctx, 'identity:assign', target);
  const itself = ctx.actor.identity_id === before.id;
  if (itself && changes('role')) throw forbidden('AUTH_FORBIDDEN', 'You may not change your own role.');
  if (itself && changes('is_active')) throw forbidden('AUTH_FORBIDDEN', 'You may not deactivate yourself.');
  if (!itself) checkRank(ctx, before);
  if (changes('role') && !mayGiveRole(ctx.actor, after.role))
    throw forbidden('AUTH_FORBIDDEN', 'You may not give a role above your own.');
  if (changes('role') || changes('is_active')) await keepAnAdmin(ctx.db, [before]);
}

/** @throws ApiError 403 when the caller could not have given the role that the identity holds */
export function checkRank(ctx: Ctx, identity: Identity): void {
  if (!mayGiveRole(ctx.actor, identity.role))
    throw forbidden('AUTH_FORBIDDEN', 'You may not change an identity whose role stands above your own.');
}

/**
 * A tenant that has administrators keeps one. Two that would remove each other wait by `holdTenant`, before either has
 * locked an identity: each locks its own first and then all.
 * @throws ApiError 409 LAST_ADMIN
 */
export async function keepAnAdmin(tx: Db, leaving: Identity[]): Promise<void> {
  if (!leaving.some(({ role, is_active }) => role === 'admin' && is_active)) return;
  const going = new Set(leaving.map(({ id }) => id));
  const admins = await lockActiveOfRole(tx, 'admin');
  if (!admins.some(({ id }) => !going.has(id)))
    throw conflict('LAST_ADMIN', 'This is the last active admin of your tenant. Make another one first.');
}
