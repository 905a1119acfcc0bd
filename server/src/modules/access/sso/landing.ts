import { type Actor, type Ctx, inTenant } from '#platform/context.ts';
import { sha256 } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import { conflict, forbidden } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { limitAddress } from '#platform/http/limits.ts';
import {
  findIdentity,
  type Identity,
  insertIdentity,
  listByVerifiedEmail,
  newIdentity,
} from '../identity/service.ts';
import { tenantChanged, tenantInsert, tenantOf } from '../tenants/service.ts';
import { findLink, findLinkOf, insertLink } from './flow-store.ts';
import type { Profile } from './oidc.ts';
import { ownTenantOf, type Source } from './sources.ts';

/** Two sign-ins of one person at once: the one that came second looks again. */
class Overtaken extends Error {
  override name = 'Overtaken';
}

/** How somebody was found: by an earlier sign-in, by a verified e-mail, or not until now. */
export type Found = 'link' | 'email' | 'new';

export interface Landed {
  /** The request inside the tenant, with the identity as its actor. */
  ctx: Ctx;
  identity: Identity;
  found: Found;
}

/**
 * The identity of somebody a provider vouches for: the one of an earlier sign-in; else the one that alone has the
 * verified e-mail; else, where the provider may bring new people, a new one.
 * @throws ApiError 403 SSO_EMAIL_NOT_ALLOWED, SSO_JIT_DISABLED or SSO_IDENTITY_INACTIVE, 409 SSO_IDENTITY_CONFLICT, 429
 */
export async function land(ctx: Ctx, source: Source, profile: Profile): Promise<Landed> {
  const { allowed_email_domains: domains } = source;
  if (domains.length > 0 && !isOf(domains, profile))
    throw forbidden('SSO_EMAIL_NOT_ALLOWED', 'Sign-in needs a verified e-mail address of an allowed domain.');
  const tenant = source.tenant ?? ownTenantOf(profile.issuer, profile.subject);
  if (!source.tenant) await checkOwnTenant(ctx, tenant);
  const inside = inTenant(ctx, tenant);
  for (let tries = 0; tries < 3; tries++) {
    try {
      const { identity, found } = await findOrMake(inside, source, profile);
      if (!identity.is_active) throw inactive();
      return { ctx: inTenant(ctx, tenant, actorOf(identity)), identity, found };
    } catch (error) {
      if (!(error instanceof Overtaken)) throw error;
    }
  }
  throw conflict(
    'SSO_IDENTITY_CONFLICT',
    'Another identity has the external id of this sign-in. Ask an administrator.',
  );
}

export const inactive = () =>
  forbidden('SSO_IDENTITY_INACTIVE', 'This identity is not active. Ask an administrator.');

/** A new tenant counts as a sign-up of the address it comes from. */
async function checkOwnTenant(ctx: Ctx, tenant: string): Promise<void> {
  const known = await tenantOf(ctx.app, tenant);
  if (!known) await limitAddress(ctx, 'signup', ctx.app.config.SIGN_UPS_PER_HOUR);
  else if (!known.is_active) throw inactive();
}

const isOf = (domains: string[], { email, emailVerified }: Profile): boolean =>
  emailVerified && domains.includes(email!.slice(email!.lastIndexOf('@') + 1));

export const actorOf = ({ id, external_id, role, claims }: Identity): Actor => ({
  type: 'identity',
  identity_id: id,
  external_id,
  role,
  claims,
  credential: id,
});

function findOrMake(
  ctx: Ctx,
  source: Source,
  profile: Profile,
): Promise<{ identity: Identity; found: Found }> {
  return ctx.db.transaction(async (tx) => {
    const link = await findLink(tx, profile.issuer, profile.subject);
    if (link) {
      const identity = await findIdentity(tx, link.identity_id);
      if (!identity) throw new Overtaken();
      return { identity, found: 'link' };
    }
    const known = await knownByEmail(tx, profile);
    if (known) {
      await linkTo(ctx, tx, source, profile, known, 'email');
      return { identity: known, found: 'email' };
    }
    return { identity: await makeIdentity(ctx, tx, source, profile), found: 'new' };
  });
}

/** The one identity with this verified e-mail, unless the issuer knows it as somebody else: addresses change hands. */
async function knownByEmail(
  tx: Db,
  { issuer, email, emailVerified }: Profile,
): Promise<Identity | undefined> {
  if (!email || !emailVerified) return undefined;
  const [only, ...others] = await listByVerifiedEmail(tx, email);
  if (!only || others.length > 0) return undefined;
  return (await findLinkOf(tx, issuer, only.id)) ? undefined : only;
}

async function linkTo(
  ctx: Ctx,
  tx: Db,
  source: Source,
  { issuer, subject }: Profile,
  identity: Identity,
  by: Exclude<Found, 'link'>,
): Promise<void> {
  const link = { tenant: ctx.tenant, issuer, subject, identityId: identity.id, providerId: source.id };
  const [made] = await tx.rows(insertLink({ ...link, now: new Date() }));
  if (!made) throw new Overtaken();
  const as = inTenant(ctx, ctx.tenant, actorOf(identity));
  await tx.run(
    fact(as, {
      type: 'identity.linked',
      resource_type: 'identity',
      resource_id: identity.id,
      data: { provider: source.name, issuer, subject, by },
    }),
  );
}

const mayCome = ({ newcomers }: Source, profile: Profile): boolean =>
  newcomers === 'all' || (newcomers !== 'none' && isOf(newcomers, profile));

/** `<provider>_<subject>`; subjects too long for an external id by their hash. */
function externalIdOf(source: Source, { subject }: Profile): string {
  const whole = `${source.id}_${subject}`;
  return whole.length <= 255 ? whole : `${source.id}_${sha256(subject).toString('hex')}`;
}

const roleOf = ({ role_mapping, default_role }: Source, { roleValues }: Profile): string =>
  role_mapping.find(({ value }) => roleValues.includes(value))?.role ?? default_role;

async function makeIdentity(ctx: Ctx, tx: Db, source: Source, profile: Profile): Promise<Identity> {
  if (!mayCome(source, profile))
    throw forbidden(
      'SSO_JIT_DISABLED',
      'You have no identity here yet. Ask an administrator for an invitation.',
    );
  const { email, emailVerified, name } = profile;
  const now = new Date();
  if (!source.tenant) await makeOwnTenant(ctx, tx, profile, now);
  const identity = newIdentity(
    ctx.tenant,
    {
      external_id: externalIdOf(source, profile),
      role: roleOf(source, profile),
      claims: email ? { email, email_verified: emailVerified } : {},
      ...(name ? { name } : {}),
    },
    now,
  );
  // Whoever has this external id without being linked is somebody else, or this very person a moment ago.
  if (!(await tx.one(insertIdentity(identity)))) throw new Overtaken();
  const { id, role, external_id, is_active } = identity;
  await tx.run(
    fact(inTenant(ctx, ctx.tenant, actorOf(identity)), {
      type: 'identity.created',
      resource_type: 'identity',
      resource_id: id,
      after: { role, external_id, is_active },
    }),
  );
  await linkTo(ctx, tx, source, profile, identity, 'new');
  return identity;
}

/** Makes the tenant of a first sign-in. Where it is there already, its administrators have removed who comes now. */
async function makeOwnTenant(ctx: Ctx, tx: Db, profile: Profile, now: Date): Promise<void> {
  const name = `Tenant for ${profile.email ?? profile.name ?? 'somebody'}`;
  const [made] = await tx.rows(tenantInsert(ctx.tenant, name, now));
  if (!made) {
    if (await findLink(tx, profile.issuer, profile.subject)) throw new Overtaken();
    throw forbidden('SSO_JIT_DISABLED', 'You have no identity in your tenant any more.');
  }
  tx.afterCommit(() => tenantChanged(ctx.app, ctx.tenant));
  await tx.run(fact(ctx, { type: 'tenant.created', resource_type: 'tenant', resource_id: ctx.tenant }));
}
