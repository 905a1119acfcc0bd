import type { Ctx, Target } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { badRequest, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { authorize, isPermitted } from '#platform/permission.ts';
import { checkScopes } from '../api-keys/service.ts';
import { findIdentity, targetOf as identityTarget, whileActive } from '../identity/service.ts';
import { viewOf, visiblePage } from '../policy/service.ts';
import { signAccessToken } from '../sessions/service.ts';
import { mostAgents } from './holds.ts';
import { type Delegate, type Delegated, type Grant, type GrantList, tokenTypes } from './schema.ts';
import {
  findGrant,
  type GrantRow,
  insertGrant,
  listGrants,
  lockGrantsOf,
  type RevokedGrant,
  revokeGrant,
  revokeGrants,
} from './store.ts';

export { actorNow, authenticateToken, stillHolds } from './holds.ts';

export const defaultScopes = ['read', 'write'];
const defaultTtlS = 900;

/**
 * Lets an agent act for the caller for a while. The token it gives carries both: what it may is what the caller's
 * policies, the agent's policies and the scopes all allow. A caller that acts for somebody itself passes that on,
 * never more. The grant ends with the session or key it was made with.
 * @throws ApiError 403, 404 for an agent that is not there or not active, 422
 */
export async function delegate(ctx: Ctx, agentId: string, input: Delegate): Promise<Delegated> {
  const { app, actor, tenant } = ctx;
  const subject = actor.identity_id;
  const agent = isUuid(agentId) ? await findIdentity(ctx.db, agentId) : undefined;
  if (!agent?.is_active || !subject) throw notFound('Identity');
  await authorize(ctx, 'delegations:create', identityTarget(agent));
  checkScopes(input.scopes ?? []);
  const agents = actor.delegation?.agents ?? [];
  if (agent.id === subject || agents.some(({ identity_id }) => identity_id === agent.id))
    throw badRequest('DELEGATION_CIRCULAR', 'An identity can not be let act for itself. Name another agent.');
  if (agents.length >= mostAgents)
    throw badRequest('DELEGATION_TOO_DEEP', `At most ${mostAgents} agents can act one for another.`);
  const now = new Date();
  const grant = await newGrant(ctx, subject, agent.id, input, now);
  const storing = ctx.db.batch([
    insertGrant(grant),
    fact(ctx, {
      type: 'delegation.granted',
      resource_type: 'delegation',
      resource_id: grant.id,
      after: shownIn(grant),
      data: input.reason ? { reason: input.reason } : {},
    }),
  ]);
  await whileActive(storing, () => notFound('Identity'));
  const expiresInS = Math.round((Date.parse(grant.expires_at) - now.getTime()) / 1000);
  const act = [agent.id, ...agents.map(({ identity_id }) => identity_id)];
  const scope = grant.scopes.join(' ');
  return {
    access_token: await signAccessToken(app, {
      tenant,
      identity: subject,
      grant: grant.id,
      act,
      scope,
      expiresInS,
    }),
    issued_token_type: tokenTypes.access,
    token_type: 'Bearer',
    expires_in: expiresInS,
    scope,
    grant_id: grant.id,
  };
}

const shownIn = ({ subject_id, agent_id, parent_id, scopes, expires_at }: GrantRow) => ({
  subject_id,
  agent_id,
  parent_id,
  scopes,
  expires_at,
});

async function newGrant(
  ctx: Ctx,
  subject: string,
  agent: string,
  { scopes = defaultScopes, expires_in = defaultTtlS, reason }: Delegate,
  now: Date,
): Promise<GrantRow> {
  const { actor, app, tenant } = ctx;
  const longest = app.config.DELEGATION_TTL_MAX_S;
  if (expires_in > longest)
    throw invalid([
      { path: '/expires_in', message: `must not be more than ${longest} (DELEGATION_TTL_MAX_S)` },
    ]);
  const parent = actor.delegation && (await findGrant(ctx.db, actor.delegation.grant_id));
  const expires = Math.min(
    now.getTime() + expires_in * 1000,
    parent ? Date.parse(parent.expires_at) : Number.POSITIVE_INFINITY,
  );
  return {
    tenant_id: tenant,
    id: uuidv7(),
    subject_id: subject,
    agent_id: agent,
    parent_id: parent?.id ?? null,
    session_id: parent ? null : (actor.session_id ?? null),
    api_key_id: parent || actor.type !== 'api_key' ? null : actor.credential,
    scopes: [...new Set(scopes)],
    reason: reason ?? null,
    expires_at: new Date(expires).toISOString(),
    revoked_at: null,
    created_at: now.toISOString(),
  };
}

const targetOf = ({ id, subject_id }: Pick<Grant, 'id' | 'subject_id'>): Target => ({
  id,
  owner: subject_id,
});

/** @throws ApiError 404 also for a grant that is not the caller's to see */
export async function getGrant(ctx: Ctx, id: string): Promise<Grant> {
  const found = isUuid(id) ? await findGrant(ctx.db, id) : undefined;
  if (!found || !(await isPermitted(ctx, 'delegations:read', targetOf(found)))) throw notFound('Delegation');
  const { session_id: _s, api_key_id: _k, ...grant } = found;
  return grant;
}

/** Grants the caller may see, newest first: those it gave, or the tenant's where policy says so. */
export async function listVisibleGrants(
  ctx: Ctx,
  { agent_id, subject_id, is_active = true, ...query }: GrantList,
): Promise<Answer> {
  const filter = { agent_id, subject_id, is_active };
  const known = [agent_id, subject_id].every((id) => id === undefined || isUuid(id));
  return visiblePage(ctx, 'delegations:list', filter, query, {
    rows: async (from) => (known ? listGrants(ctx.db, filter, from, new Date()) : []),
    owned: true,
    target: targetOf,
    position: (row) => [row.created_at, row.id],
    size: 100,
  });
}

/** Takes a grant back, and with it every grant made from it, on every process. @throws ApiError 404 */
export async function revokeDelegation(ctx: Ctx, id: string): Promise<void> {
  const grant = isUuid(id) ? await findGrant(ctx.db, id) : undefined;
  if (!grant || !(await isPermitted(ctx, 'delegations:delete', targetOf(grant))))
    throw notFound('Delegation');
  await ctx.db.transaction(async (tx) => {
    const [revoked] = await tx.rows(revokeGrant(ctx.tenant, grant.id, new Date()));
    if (revoked) await recordRevoked(ctx, tx, [revoked]);
  });
}

/**
 * Takes back every grant that an identity gave or was given, as far as the caller may: its own, or all of the tenant's.
 * @returns how many
 * @throws ApiError 404 for an identity that is not there
 */
export async function revokeDelegationsOf(ctx: Ctx, identityId: string): Promise<number> {
  if (!isUuid(identityId) || !(await findIdentity(ctx.db, identityId))) throw notFound('Identity');
  const view = await viewOf(ctx, 'delegations:delete');
  return ctx.db.transaction(async (tx) => {
    const owner = view.rows === 'own' ? ctx.actor.identity_id : undefined;
    const grants = await lockGrantsOf(tx, [identityId], owner, new Date());
    return takeBack(
      ctx,
      tx,
      grants.filter((grant) => view.sees(targetOf(grant))),
    );
  });
}

/** Takes back every grant that identities gave or were given; `ctx.db` may be a transaction. */
export async function endGrantsOf(ctx: Ctx, identityIds: string[]): Promise<void> {
  await ctx.db.transaction(async (tx) =>
    takeBack(ctx, tx, await lockGrantsOf(tx, identityIds, undefined, new Date())),
  );
}

/** @returns how many */
async function takeBack(ctx: Ctx, tx: Db, grants: RevokedGrant[]): Promise<number> {
  if (grants.length === 0) return 0;
  const ids = grants.map(({ id }) => id);
  await tx.run(revokeGrants(ctx.tenant, ids, new Date()));
  await recordRevoked(ctx, tx, grants);
  return grants.length;
}

async function recordRevoked(ctx: Ctx, tx: Db, grants: RevokedGrant[]): Promise<void> {
  await tx.batch(
    grants.map(({ id, agent_id, subject_id }) =>
      fact(ctx, {
        type: 'delegation.revoked',
        resource_type: 'delegation',
        resource_id: id,
        data: { agent_id, subject_id },
      }),
    ),
  );
  tx.afterCommit(() => {
    for (const { id } of grants) ctx.app.shared.invalidate('delegation', `${ctx.tenant}/${id}`);
  });
}
