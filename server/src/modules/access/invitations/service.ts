import type { App, Ctx, Target } from '#platform/context.ts';
import { inTenant, systemCtx } from '#platform/context.ts';
import { hmac, sameBytes } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import { ApiError, conflict, forbidden, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { limitAddress } from '#platform/http/limits.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { authorize, isNarrowed, requireNotActing } from '#platform/permission.ts';
import { activeIdentity, canonicalEmail, insertIdentity, newIdentity } from '../identity/service.ts';
import { queueMail, requireMail } from '../mails/service.ts';
import { mayGiveRole, visiblePage } from '../policy/service.ts';
import { startSession } from '../sessions/service.ts';
import { invitationLetter } from './letter.ts';
import type { Invitation, InvitationAccept, InvitationCreate, InvitationQuery } from './schema.ts';
import {
  acceptRow,
  deleteInvitation,
  expireRows,
  findInvitation,
  findOffered,
  findTenantName,
  forgetInviter,
  insertInvitation,
  listInvitations,
  listTenantsWithExpired,
  type Offered,
  renewRow,
  setAcceptedBy,
} from './store.ts';
import { makeToken, placeOf } from './token.ts';

const dayMs = 86_400_000;
const hourMs = 3_600_000;

/** Mails one invitation may send in an hour, the first one included. */
const mailsPerHour = 4;

const targetOf = ({ id, invited_by, role }: Invitation): Target => ({
  id,
  role,
  ...(invited_by ? { owner: invited_by } : {}),
});

const hashOf = ({ keys }: App, token: string): Buffer => hmac(keys.credential, `invitation ${token}`);

/** What the list and the row show at this moment: what is past its time has expired, whether a clock has marked it or not. */
const asOf = (now: number, row: Invitation): Invitation =>
  row.status === 'pending' && Date.parse(row.expires_at) <= now ? { ...row, status: 'expired' } : row;

/**
 * Invites somebody by mail. Only the mail has the token.
 * @throws ApiError 403 for a role above the caller's, 409 INVITATION_EXISTS, 503 MAIL_NOT_CONFIGURED
 */
export async function createInvitation(ctx: Ctx, input: InvitationCreate): Promise<Invitation> {
  requireMail(ctx);
  const emailKey = canonicalEmail(input.email);
  if (!emailKey) throw invalid([{ path: '/email', message: 'is not an e-mail address mails are sent to' }]);
  requireNotActing(ctx.actor);
  if (isNarrowed(ctx.actor))
    throw forbidden('AUTH_FORBIDDEN', 'An API key that is limited by scopes can not invite.');
  if (!mayGiveRole(ctx.actor, input.role))
    throw forbidden('AUTH_FORBIDDEN', 'You may not invite to a role above your own.');
  const id = uuidv7();
  await authorize(ctx, 'invitations:create', { id, role: input.role, owner: ctx.actor.identity_id! });
  const now = new Date();
  const days = input.expires_in_days ?? 7;
  const expires = new Date(now.getTime() + days * dayMs);
  const token = makeToken(ctx.tenant, id);
  return ctx.db.transaction(async (tx) => {
    await expire(ctx, tx, now, emailKey);
    const made = await tx.one(
      insertInvitation({
        tenant_id: ctx.tenant,
        id,
        email: input.email,
        email_key: emailKey,
        role: input.role,
        claims: input.claims ?? {},
        token_hash: hashOf(ctx.app, token),
        expires_in_days: days,
        expires_at: expires,
        invited_by: ctx.actor.identity_id,
        now,
      }),
    );
    if (!made) throw conflict('INVITATION_EXISTS', `Active invitation already exists for ${input.email}.`);
    const { email, role, expires_at } = made;
    await tx.batch([
      ...(await mailOf(ctx, tx, token, made)),
      fact(ctx, {
        type: 'invitation.sent',
        resource_type: 'invitation',
        resource_id: id,
        after: { email, role, expires_at },
      }),
    ]);
    return made;
  });
}

async function mailOf(ctx: Ctx, tx: Db, token: string, { email, role, expires_at }: Invitation) {
  const { INVITATION_URL, publicUrl } = ctx.app.config;
  const page = INVITATION_URL ?? `${publicUrl}/console/invitations/{token}`;
  const letter = invitationLetter({
    to: email,
    tenant: { id: ctx.tenant, name: (await findTenantName(tx))?.name ?? '' },
    role,
    link: page.replaceAll('{token}', token),
    expiresAt: new Date(expires_at),
  });
  return queueMail(ctx, 'invitation', letter);
}

async function expire(ctx: Ctx, tx: Db, now: Date, emailKey?: string): Promise<void> {
  const ended = await tx.rows(expireRows(ctx.tenant, emailKey, now));
  await tx.batch(
    ended.map(({ id, role }) =>
      fact(ctx, {
        type: 'invitation.expired',
        resource_type: 'invitation',
        resource_id: id,
        after: { role },
      }),
    ),
  );
}

/** Invitations the caller may see, newest first; accepted ones only when asked for. */
export function listVisibleInvitations(ctx: Ctx, { include_accepted = false, ...query }: InvitationQuery) {
  const now = Date.now();
  return visiblePage(ctx, 'invitations:list', { include_accepted }, query, {
    rows: async (from) =>
      (await listInvitations(ctx.db, include_accepted, from)).map((row) => asOf(now, row)),
    owned: true,
    target: targetOf,
    position: (row) => [row.created_at, row.id],
    size: 100,
  });
}

async function invitationFor(ctx: Ctx, permission: `invitations:${string}`, id: string): Promise<Invitation> {
  const found = isUuid(id) ? await findInvitation(ctx.db, id) : undefined;
  if (!found) throw notFound('Invitation');
  await authorize(ctx, permission, targetOf(found));
  return asOf(Date.now(), found);
}

/** @throws ApiError 404, also for what another tenant has */
export const getInvitation = (ctx: Ctx, id: string): Promise<Invitation> =>
  invitationFor(ctx, 'invitations:read', id);

/**
 * Takes an invitation back: its token is worth nothing from here on.
 * @throws ApiError 404, 409 INVITATION_ACCEPTED when somebody has come by it
 */
export async function revokeInvitation(ctx: Ctx, id: string): Promise<{ message: string }> {
  const { email, role } = await invitationFor(ctx, 'invitations:delete', id);
  await ctx.db.transaction(async (tx) => {
    const [gone] = await tx.rows(deleteInvitation(ctx.tenant, id));
    if (!gone) throw await endedOf(tx, id);
    await tx.run(
      fact(ctx, {
        type: 'invitation.revoked',
        resource_type: 'invitation',
        resource_id: gone.id,
        before: { email, role },
      }),
    );
  });
  return { message: 'Invitation revoked successfully' };
}

/** Why an invitation could not be changed: in the meantime, or before, it has ended. */
async function endedOf(db: Db, id: string): Promise<ApiError> {
  const found = await findInvitation(db, id);
  if (!found) return notFound('Invitation');
  if (found.status === 'accepted')
    return conflict(
      'INVITATION_ACCEPTED',
      'This invitation has been accepted. Deactivate the identity instead.',
    );
  if (asOf(Date.now(), found).status === 'expired')
    return conflict('INVITATION_EXPIRED', 'This invitation has expired. Make a new one.');
  const wait = 'This invitation was sent too often. Wait an hour.';
  return new ApiError(429, 'RATE_LIMITED', wait, { scope: 'invitation' }, { 'retry-after': '3600' });
}

/**
 * Sends an invitation again, with a new token and its full time; the earlier token is worth nothing from here on. Whoever does so
 * answers for it from then on.
 * @throws ApiError 403 when the caller may not give the role, 404, 409 INVITATION_ACCEPTED or INVITATION_EXPIRED, 429
 */
export async function resendInvitation(ctx: Ctx, id: string): Promise<{ message: string }> {
  requireMail(ctx);
  const found = await invitationFor(ctx, 'invitations:update', id);
  requireNotActing(ctx.actor);
  if (isNarrowed(ctx.actor) || !mayGiveRole(ctx.actor, found.role))
    throw forbidden('AUTH_FORBIDDEN', 'You may not invite to a role above your own.');
  const now = new Date();
  const token = makeToken(ctx.tenant, found.id);
  await ctx.db.transaction(async (tx) => {
    const [renewed] = await tx.rows(
      renewRow(ctx.tenant, found.id, {
        token_hash: hashOf(ctx.app, token),
        invited_by: ctx.actor.identity_id,
        now,
        hourAgo: new Date(now.getTime() - hourMs),
        mostMails: mailsPerHour,
      }),
    );
    if (!renewed) throw await endedOf(tx, found.id);
    await tx.batch([
      ...(await mailOf(ctx, tx, token, renewed)),
      fact(ctx, {
        type: 'invitation.resent',
        resource_type: 'invitation',
        resource_id: found.id,
        after: { expires_at: renewed.expires_at },
      }),
    ]);
  });
  return { message: 'Invitation sent again' };
}

/** Forgets by whom others were invited. */
export const forgetInvitationsOf = async (ctx: Ctx, identityId: string): Promise<void> =>
  void (await ctx.db.batch(forgetInviter(ctx.tenant, identityId)));

const noInvitation = () => new ApiError(404, 'NOT_FOUND', 'Invalid or expired invitation token.');

/** Whether who sent it could still send it: an invitation must not outlive what it gives in the name of. */
async function isAnsweredFor({ app, tenant }: Ctx, { invited_by, role }: Offered): Promise<boolean> {
  if (invited_by === null) return true;
  const inviter = await activeIdentity(app, tenant, invited_by);
  return inviter !== undefined && mayGiveRole({ type: 'identity', role: inviter.role }, role);
}

/**
 * What a token offers. Unknown, revoked, replaced, expired and used ones, and texts that are none, take the same steps
 * to the same answer.
 * @throws ApiError 404, 429
 */
async function offeredBy(ctx: Ctx, token: string): Promise<{ offered: Offered; at: Ctx; tokenHash: Buffer }> {
  await limitAddress(ctx, 'invitation', ctx.app.config.INVITATION_CALLS_PER_HOUR);
  const { tenant, id } = placeOf(token);
  const at = inTenant(ctx, tenant);
  const offered = await findOffered(at.db, id);
  const tokenHash = hashOf(ctx.app, token);
  const isIt = sameBytes(tokenHash, offered?.token_hash ?? Buffer.alloc(32));
  const holds =
    offered?.status === 'pending' && offered.tenant_is_active && Date.parse(offered.expires_at) > Date.now();
  if (!offered || !isIt || !holds || !(await isAnsweredFor(at, offered))) throw noInvitation();
  return { offered, at, tokenHash };
}

/** @throws ApiError 404, 429 */
export async function validateToken(ctx: Ctx, token: string) {
  const { offered } = await offeredBy(ctx, token);
  const { email, role, tenant_name, expires_at } = offered;
  return { valid: true as const, email, role, tenant_name, expires_at };
}

/**
 * Accepts an invitation once: makes the identity it offers, with the e-mail as a verified claim, and signs it in.
 * @throws ApiError 404, 409 IDENTITY_EXISTS when the external id is taken (the invitation can be used again), 429
 */
export async function acceptToken(ctx: Ctx, token: string, input: InvitationAccept) {
  const { offered, at, tokenHash } = await offeredBy(ctx, token);
  const now = new Date();
  const { tenant } = at;
  const identity = newIdentity(
    tenant,
    {
      external_id: input.external_id ?? offered.email_key,
      role: offered.role,
      claims: { ...offered.claims, email: offered.email_key, email_verified: true },
      ...(input.name === undefined ? {} : { name: input.name }),
    },
    now,
  );
  const { id, role, external_id, is_active, claims } = identity;
  const actor = { type: 'identity' as const, identity_id: id, external_id, role, claims, credential: id };
  const as = inTenant(ctx, tenant, actor);
  const session = await startSession(as, identity, now);
  await at.db.transaction(async (tx) => {
    // The row is the lock: of several that accept at once, the others find it taken when this one commits, and free
    // when it does not.
    const [accepted] = await tx.rows(acceptRow(tenant, offered.id, tokenHash, now));
    if (!accepted) throw noInvitation();
    if (!(await tx.one(insertIdentity(identity))))
      throw conflict('IDENTITY_EXISTS', 'An identity with this external_id exists. Choose another one.');
    await tx.batch([
      setAcceptedBy(tenant, offered.id, id),
      ...session.statements,
      fact(as, {
        type: 'identity.created',
        resource_type: 'identity',
        resource_id: id,
        after: { role, external_id, is_active },
      }),
      fact(as, {
        type: 'invitation.accepted',
        resource_type: 'invitation',
        resource_id: offered.id,
        after: { email: offered.email, role },
        data: { identity_id: id },
      }),
    ]);
  });
  return { identity, token: session.tokens.access_token, ...session.tokens };
}

/** Marks what is past its time, tenant by tenant, and says so. */
export async function expireInvitations(app: App): Promise<void> {
  const now = new Date();
  for (const { tenant_id } of await listTenantsWithExpired(app.database.operator, now)) {
    const ctx = systemCtx(app, tenant_id, uuidv7());
    await ctx.db.transaction((tx) => expire(ctx, tx, now));
  }
}
