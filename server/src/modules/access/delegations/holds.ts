import { createCache } from '#platform/cache.ts';
import type { Actor, App, Authenticated, Ctx, Delegation, Origin } from '#platform/context.ts';
import { perApp } from '#platform/per-app.ts';
import { activeKey } from '../api-keys/service.ts';
import { activeIdentity } from '../identity/service.ts';
import {
  type AccessClaims,
  authenticateSession,
  livingSession,
  verifyAccessToken,
} from '../sessions/service.ts';
import { tenantOf } from '../tenants/service.ts';
import { findGrant, type GrantRow } from './store.ts';

/** How many agents may act one for another. */
export const mostAgents = 4;

const cacheOf = perApp((app) => createCache<GrantRow | undefined>(app.shared, 'delegation', 50_000));

async function grantOf(app: App, tenant: string, id: string): Promise<GrantRow | undefined> {
  const cache = cacheOf(app);
  const key = `${tenant}/${id}`;
  return cache.peek(key) ?? cache.get(key, () => findGrant(app.database.tenant(tenant), id));
}

/** The actor behind an access token: of a session, or of a grant by which an agent acts for somebody. */
export async function authenticateToken(
  app: App,
  token: string,
  from: Origin,
): Promise<Authenticated | undefined> {
  const claims = await verifyAccessToken(app, token);
  if (!claims) return undefined;
  return claims.grant === undefined ? authenticateSession(app, claims, from) : authenticateGrant(app, claims);
}

/** Whether what the caller was let in with holds still: for answers that go on being written long after. */
export const stillHolds = async (ctx: Ctx): Promise<boolean> => (await actorNow(ctx)) !== undefined;

/**
 * The caller as it would be let in now, by what it was let in with: its role, its claims and the scopes of its key may be
 * others. Undefined when that does not hold any more.
 */
export async function actorNow({ app, tenant, actor }: Ctx): Promise<Actor | undefined> {
  const { type, identity_id, credential, session_id, delegation } = actor;
  // A stand-in of development has nothing that could end.
  if (identity_id === undefined || (type !== 'api_key' && !session_id && !delegation)) return actor;
  if (!(await tenantOf(app, tenant))?.is_active) return undefined;
  if (delegation) {
    const claims = { tenant, identity: identity_id, grant: delegation.grant_id };
    return (await authenticateGrant(app, claims))?.actor;
  }
  const key = session_id ? undefined : await activeKey(app, tenant, credential);
  const held = key ?? (session_id && (await livingSession(app, tenant, session_id, identity_id)));
  const identity = held && (await activeIdentity(app, tenant, identity_id));
  if (!identity) return undefined;
  const { scopes: _before, ...same } = actor;
  const { external_id, role, claims } = identity;
  return { ...same, external_id, role, claims, ...(key?.scopes.length ? { scopes: key.scopes } : {}) };
}

/** The token, its grant, every grant that one was made from, what the first was made with, and everybody in between must hold now. */
async function authenticateGrant(
  app: App,
  claims: Pick<AccessClaims, 'tenant' | 'identity' | 'grant'>,
): Promise<Authenticated | undefined> {
  const { tenant } = claims;
  const agents: Delegation['agents'] = [];
  const scopes: string[][] = [];
  for (let id: string | null = claims.grant!; id !== null; ) {
    const grant: GrantRow | undefined = await grantOf(app, tenant, id);
    if (!grant || agents.length >= mostAgents) return undefined;
    const held = await grantHolds(app, grant, claims.identity);
    const agent = held && (await activeIdentity(app, tenant, grant.agent_id));
    if (!agent) return undefined;
    agents.push({
      identity_id: agent.id,
      external_id: agent.external_id,
      role: agent.role,
      claims: agent.claims,
    });
    scopes.push(grant.scopes, ...held);
    id = grant.parent_id;
  }
  const subject = await activeIdentity(app, tenant, claims.identity);
  if (!subject) return undefined;
  return {
    tenant,
    actor: {
      type: 'identity',
      identity_id: subject.id,
      external_id: subject.external_id,
      role: subject.role,
      claims: subject.claims,
      credential: claims.grant!,
      delegation: { grant_id: claims.grant!, agents, scopes },
    },
  };
}

/** Undefined when the grant, or what it was made with, does not hold any more; else the scopes of the key it was made with. */
async function grantHolds(app: App, grant: GrantRow, subject: string): Promise<string[][] | undefined> {
  const { tenant_id: tenant, session_id, api_key_id, parent_id } = grant;
  const isOver = grant.revoked_at !== null || Date.parse(grant.expires_at) <= Date.now();
  if (isOver || grant.subject_id !== subject) return undefined;
  if (parent_id !== null) return [];
  if (session_id !== null) return (await livingSession(app, tenant, session_id, subject)) ? [] : undefined;
  const key = api_key_id === null ? undefined : await activeKey(app, tenant, api_key_id);
  if (key?.identity_id !== subject) return undefined;
  return key.scopes.length > 0 ? [key.scopes] : [];
}
