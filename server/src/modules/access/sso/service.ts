import { randomBytes } from 'node:crypto';
import { randomNonce, randomPKCECodeVerifier, randomState } from 'openid-client';
import type { App, Ctx } from '#platform/context.ts';
import { inTenant } from '#platform/context.ts';
import { decrypt, encrypt, hmac, sha256 } from '#platform/crypto.ts';
import type { SealedColumn } from '#platform/db/reseal.ts';
import { ApiError, badRequest, forbidden, invalid } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { limitAddress } from '#platform/http/limits.ts';
import { Answer } from '#platform/http/route.ts';
import { findIdentity, holdActive, type Identity, whileActive } from '../identity/service.ts';
import { startSession } from '../sessions/service.ts';
import { tenantOf } from '../tenants/service.ts';
import { browserOf, cookieFor, newBrowser } from './browser.ts';
import {
  claimCode,
  claimState,
  deleteCodesOf,
  findCode,
  insertCode,
  insertState,
  pruneCodes,
  pruneStates,
} from './flow-store.ts';
import { actorOf, type Found, inactive, type Landed, land } from './landing.ts';
import { authorizationUrl, type Expected, invalidState, redeemCode } from './oidc.ts';
import { addressesOf, sealedClientSecrets } from './providers.ts';
import type { CallbackQuery, LoginQuery, SsoExchange, SsoUser } from './schema.ts';
import { type Source, shelfOf, sourceOf } from './sources.ts';

const stateMs = 10 * 60_000;
const codeMs = 60_000;

/** Nothing of a sign-in belongs into a cache, or into the Referer of a page after it. */
const notStored = { 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' };

/** What a sign-in under way keeps, sealed. */
interface Kept extends Expected {
  issuer: string;
  client_id: string;
  return_to?: string;
  code_challenge?: string;
}

const hashOf = ({ keys }: App, what: 'state' | 'browser' | 'code', secret: string): Buffer =>
  hmac(keys.credential, `sso ${what} ${secret}`);
const boundTo = (what: 'state' | 'code', tenant: string, hash: Buffer): string =>
  `sso ${what} ${tenant} ${hash.toString('hex')}`;

export const sealedSignIns: SealedColumn[] = [
  sealedClientSecrets,
  {
    table: 'sso_states',
    column: 'sealed',
    key: { tenant_id: 'text', state_hash: 'bytea' },
    context: ({ tenant_id, state_hash }) => boundTo('state', tenant_id, state_hash),
  },
  {
    table: 'sso_codes',
    column: 'sealed',
    key: { tenant_id: 'text', code_hash: 'bytea' },
    context: ({ tenant_id, code_hash }) => boundTo('code', tenant_id, code_hash),
  },
];

const limitCalls = (ctx: Ctx): Promise<void> => limitAddress(ctx, 'sso', ctx.app.config.SSO_CALLS_PER_HOUR);

/**
 * Begins a sign-in: answers with the way to the provider, and a cookie that ties the sign-in to this browser.
 * @throws ApiError 400 SSO_RETURN_TO_NOT_ALLOWED, 404 SSO_PROVIDER_NOT_FOUND, 422, 429, 503 SSO_PROVIDER_UNAVAILABLE
 */
export async function beginSignIn(
  ctx: Ctx,
  name: string,
  query: LoginQuery,
  cookies: string | undefined,
): Promise<Answer> {
  const { app } = ctx;
  await limitCalls(ctx);
  checkReturn(app, query);
  const source = await sourceOf(app, name);
  const expected: Expected = {
    state: randomState(),
    nonce: randomNonce(),
    verifier: randomPKCECodeVerifier(),
  };
  const location = await authorizationUrl(app, source, addressesOf(app, name).redirect_uri, expected);
  const browser = browserOf(cookies) ?? newBrowser();
  const kept: Kept = { ...expected, ...query, issuer: source.issuer, client_id: source.client_id };
  const stateHash = hashOf(app, 'state', expected.state);
  await app.database.tenant(source.shelf).run(
    insertState({
      tenant: source.shelf,
      stateHash,
      browserHash: hashOf(app, 'browser', browser),
      providerId: source.id,
      sealed: encrypt(app.keys.encryption, JSON.stringify(kept), boundTo('state', source.shelf, stateHash)),
      expiresAt: new Date(Date.now() + stateMs),
    }),
  );
  return new Answer(302, undefined, { ...notStored, location, 'set-cookie': cookieFor(browser, stateMs) });
}

/** A page is returned to only on an origin the operator listed, letter by letter; never on one that looks like it. */
function checkReturn({ config }: App, { return_to, code_challenge }: LoginQuery): void {
  if (return_to === undefined) {
    if (code_challenge !== undefined)
      throw invalid([{ path: '/return_to', message: 'is required with code_challenge' }]);
    return;
  }
  const url = URL.canParse(return_to) ? new URL(return_to) : undefined;
  const whole = url && !url.username && !url.password && !return_to.includes('#');
  if (!whole || !config.SSO_RETURN_TO_ORIGINS.includes(url.origin))
    throw badRequest(
      'SSO_RETURN_TO_NOT_ALLOWED',
      'A sign-in returns only to a page, without fragment, of an origin in SSO_RETURN_TO_ORIGINS.',
    );
  if (code_challenge === undefined)
    throw invalid([{ path: '/code_challenge', message: 'is required with return_to' }]);
}

/**
 * Ends a sign-in: with tokens, or by returning to the front end it began at, with a code or the reason it failed.
 * @param cookies the Cookie header: only the browser that began the sign-in can end it, and once
 * @throws ApiError 400 SSO_INVALID_STATE; for sign-ins without return_to whatever `completed` throws
 */
export async function endSignIn(
  ctx: Ctx,
  name: string,
  query: CallbackQuery,
  cookies: string | undefined,
): Promise<Answer> {
  await limitCalls(ctx);
  const kept = await claimed(ctx, name, query.state, cookies);
  try {
    return await completed(ctx, name, query, kept);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    await tellFailure(ctx, name, error.code);
    if (kept.return_to === undefined) throw error;
    return returning(kept.return_to, { error: error.code });
  } finally {
    ctx.app.nudgeRelay();
  }
}

const idOf = (name: string): string => name.slice(name.lastIndexOf('.') + 1);

/** What was kept of the sign-in that this callback belongs to; from here on no other callback can have it. */
async function claimed(
  { app }: Ctx,
  name: string,
  state: string | undefined,
  cookies: string | undefined,
): Promise<Kept> {
  const tenant = shelfOf(name);
  const browser = browserOf(cookies);
  if (tenant === undefined || !state || !browser) throw invalidState();
  const stateHash = hashOf(app, 'state', state);
  const browserHash = hashOf(app, 'browser', browser);
  const providerId = idOf(name);
  const [row] = await app.database
    .tenant(tenant)
    .rows(claimState({ tenant, stateHash, browserHash, providerId }, new Date()));
  if (!row) throw invalidState();
  return JSON.parse(decrypt(app.keys.encryption, row.sealed, boundTo('state', tenant, stateHash)).toString());
}

async function completed(ctx: Ctx, name: string, query: CallbackQuery, kept: Kept): Promise<Answer> {
  const source = await sourceOf(ctx.app, name);
  // Changed since the sign-in began: its answer would be held against another provider than it was meant for.
  if (source.issuer !== kept.issuer || source.client_id !== kept.client_id) throw invalidState();
  if (query.error !== undefined) {
    ctx.log.info({ provider: name, error: query.error.slice(0, 100) }, 'a provider refused a sign-in');
    throw forbidden('SSO_ACCESS_DENIED', 'The identity provider did not let you sign in.');
  }
  const callback = new URL(addressesOf(ctx.app, name).redirect_uri);
  for (const field of ['code', 'state', 'iss'] as const) {
    const value = query[field];
    if (value !== undefined) callback.searchParams.set(field, value);
  }
  const profile = await redeemCode(ctx, source, callback, kept);
  const landed = await land(ctx, source, profile);
  const { identity } = landed;
  const user: SsoUser = {
    id: identity.id,
    email: profile.email ?? null,
    name: identity.name ?? profile.name ?? null,
    provider: name,
  };
  if (kept.return_to === undefined) return new Answer(200, await signedIn(landed, user), notStored);
  return returning(kept.return_to, { code: await codeFor(landed, kept.code_challenge!, user) });
}

/** Starts the session of somebody who was found, together with what else has to happen for it. */
async function signedIn({ ctx, identity, found }: Landed, user: SsoUser) {
  const session = await startSession(ctx, identity, new Date());
  const signIn = signInFact(ctx, identity, user.provider, found);
  await whileActive(ctx.db.batch([...session.statements, signIn]), inactive);
  return { ...session.tokens, user };
}

const signInFact = (ctx: Ctx, { id }: Identity, provider: string, found: Found) =>
  fact(ctx, { type: 'sso.login', resource_type: 'identity', resource_id: id, data: { provider, found } });

function returning(page: string, parameters: Record<string, string>): Answer {
  const url = new URL(page);
  // One that stood there before must not be taken for ours.
  for (const name of ['code', 'error']) url.searchParams.delete(name);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return new Answer(302, undefined, { ...notStored, location: url.href });
}

/** What a code stands for, sealed. */
interface KeptForCode {
  user: SsoUser;
  found: Found;
}

/** A code for the front end: `sso_<tenant>_<secret>`. No session exists before it is exchanged. */
async function codeFor({ ctx, identity, found }: Landed, challenge: string, user: SsoUser): Promise<string> {
  const { app, tenant } = ctx;
  const code = `sso_${tenant}_${randomBytes(32).toString('base64url')}`;
  const hash = hashOf(app, 'code', code);
  const kept: KeptForCode = { user, found };
  const sealed = encrypt(app.keys.encryption, JSON.stringify(kept), boundTo('code', tenant, hash));
  const row = { identity_id: identity.id, sealed };
  const storing = ctx.db.run(insertCode(tenant, hash, challenge, row, new Date(Date.now() + codeMs)));
  await whileActive(storing, inactive);
  return code;
}

const codeForm = /^sso_([a-z0-9][a-z0-9._-]{0,63})_[A-Za-z0-9_-]{43}$/;
const verifierForm = /^[A-Za-z0-9\-._~]{43,128}$/;

const invalidCode = () =>
  badRequest('SSO_INVALID_CODE', 'The code is not one, was used, or is older than a minute. Sign in again.');

/**
 * Turns a code into tokens, once, for whoever has the verifier of the challenge that the sign-in began with.
 * @throws ApiError 400 SSO_INVALID_CODE whatever is wrong with code or verifier, 403 SSO_IDENTITY_INACTIVE, 429
 */
export async function exchangeCode(ctx: Ctx, { code, code_verifier }: SsoExchange) {
  await limitCalls(ctx);
  const { app } = ctx;
  const tenant = codeForm.exec(code)?.[1];
  if (tenant === undefined || !verifierForm.test(code_verifier)) throw invalidCode();
  const hash = hashOf(app, 'code', code);
  const challenge = sha256(code_verifier).toString('base64url');
  const row = await findCode(app.database.tenant(tenant), hash, challenge, new Date());
  const identity = row && (await findIdentity(app.database.tenant(tenant), row.identity_id));
  if (!row || !identity || !(await tenantOf(app, tenant))?.is_active) throw invalidCode();
  if (!identity.is_active) throw inactive();
  const { user, found }: KeptForCode = JSON.parse(
    decrypt(app.keys.encryption, row.sealed, boundTo('code', tenant, hash)).toString(),
  );
  const as = inTenant(ctx, tenant, actorOf(identity));
  const session = await startSession(as, identity, new Date());
  await as.db.transaction(async (tx) => {
    if (!(await holdActive(tx, identity.id))) throw inactive();
    const [taken] = await tx.rows(claimCode(tenant, hash));
    if (!taken) throw invalidCode();
    const signIn = signInFact(as, identity, user.provider, found);
    await tx.batch([...session.statements, signIn]);
  });
  return new Answer(200, { ...session.tokens, user }, notStored);
}

/** Writes into the ledger of a provider's tenant that a sign-in failed; those that have no tenant yet are in the log only. */
async function tellFailure(ctx: Ctx, name: string, code: string): Promise<void> {
  const tenant = await tenantOfSource(ctx.app, name);
  if (!tenant) return;
  const inside = inTenant(ctx, tenant);
  await inside.db.run(
    fact(inside, {
      type: 'sso.login_failed',
      resource_type: 'identity_provider',
      resource_id: idOf(name),
      outcome: 'failure',
      data: { provider: name, code },
    }),
  );
}

const tenantOfSource = (app: App, name: string): Promise<Source['tenant']> =>
  sourceOf(app, name).then(
    ({ tenant }) => tenant,
    () => undefined,
  );

/** Ends codes of identities that nobody has exchanged. */
export const endCodesOf = async (ctx: Ctx, identityIds: string[]): Promise<void> =>
  void (await ctx.db.run(deleteCodesOf(ctx.tenant, identityIds)));

/** Forgets sign-ins that nobody ended, and codes that nobody exchanged. */
export async function pruneSignIns(app: App): Promise<void> {
  const now = new Date();
  await pruneStates(app.database.operator, now);
  await pruneCodes(app.database.operator, now);
}
