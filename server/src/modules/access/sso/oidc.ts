import * as oidc from 'openid-client';
import type { App, Ctx } from '#platform/context.ts';
import { ApiError, badRequest } from '#platform/errors.ts';
import { canonicalEmail } from '../identity/service.ts';
import {
  fetchOf,
  type Issuer,
  isPlain,
  issuerOf,
  metadataOf,
  type Progress,
  providerUnavailable,
} from './issuers.ts';
import type { Source } from './sources.ts';

/** Algorithms an id token may be signed with: those with a key pair. Never `none`, and never a shared secret (RFC 8725, section 3.1). */
const signing = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
];

/** What binds an answer of the provider to the sign-in it belongs to. */
export interface Expected {
  state: string;
  nonce: string;
  verifier: string;
}

/** Somebody, as a provider tells it. */
export interface Profile {
  issuer: string;
  subject: string;
  /** In its canonical form. */
  email: string | undefined;
  /** True when the provider is to be believed that the e-mail is this person's. */
  emailVerified: boolean;
  name: string | undefined;
  /** Values of the claim that tells roles. */
  roleValues: string[];
}

function configOf(
  app: App,
  source: Source,
  issuer: Issuer,
  metadata: oidc.ServerMetadata,
  progress: Progress,
): oidc.Configuration {
  const offered = metadata.id_token_signing_alg_values_supported ?? ['RS256'];
  const server = {
    ...metadata,
    id_token_signing_alg_values_supported: offered.filter((algorithm) => signing.includes(algorithm)),
  };
  const config = new oidc.Configuration(
    server,
    source.client_id,
    undefined,
    authenticationOf(source, metadata),
  );
  config[oidc.customFetch] = fetchOf(app, issuer, progress);
  if (isPlain(app, source.issuer)) oidc.allowInsecureRequests(config);
  // Without this an id token is believed because of the connection it came over.
  oidc.enableNonRepudiationChecks(config);
  if (issuer.keys) oidc.setJwksCache(config, issuer.keys);
  return config;
}

/** How the client proves itself: by the default of OpenID Connect unless the provider has another one only. */
function authenticationOf(source: Source, metadata: oidc.ServerMetadata): oidc.ClientAuth {
  const secret = source.client_secret();
  if (!secret) return oidc.None();
  const methods = metadata.token_endpoint_auth_methods_supported;
  return methods && !methods.includes('client_secret_basic')
    ? oidc.ClientSecretPost(secret)
    : oidc.ClientSecretBasic(secret);
}

/**
 * Where a browser is sent to sign in: authorization code flow with PKCE (S256), state and nonce.
 * @throws ApiError 503 SSO_PROVIDER_UNAVAILABLE
 */
export async function authorizationUrl(
  app: App,
  source: Source,
  redirectUri: string,
  { state, nonce, verifier }: Expected,
): Promise<string> {
  const issuer = issuerOf(app, source.issuer);
  const metadata = await metadataOf(app, source.issuer, issuer);
  const config = configOf(app, source, issuer, metadata, { phase: 'response' });
  const url = oidc.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: source.scopes.join(' '),
    state,
    nonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
  });
  return url.href;
}

/**
 * Exchanges the code of a callback, checks the id token (signature by a published key, iss, aud, azp, exp, nonce), and
 * asks for what it does not say.
 * @param callback the redirect URI with the parameters the provider added
 * @throws ApiError 400 SSO_INVALID_STATE, 401 SSO_ID_TOKEN_INVALID, 502 SSO_TOKEN_EXCHANGE_FAILED, 503 SSO_PROVIDER_UNAVAILABLE
 */
export async function redeemCode(
  ctx: Ctx,
  source: Source,
  callback: URL,
  { state, nonce, verifier }: Expected,
): Promise<Profile> {
  const { app } = ctx;
  const issuer = issuerOf(app, source.issuer);
  const metadata = await metadataOf(app, source.issuer, issuer);
  const progress: Progress = { phase: 'response' };
  const config = configOf(app, source, issuer, metadata, progress);
  try {
    const tokens = await oidc.authorizationCodeGrant(config, callback, {
      expectedState: state,
      expectedNonce: nonce,
      pkceCodeVerifier: verifier,
      idTokenExpected: true,
    });
    const claims = tokens.claims()!;
    if (!/^[\x20-\x7e]{1,255}$/.test(claims.sub)) throw new Error('the subject is not one');
    progress.phase = 'userinfo';
    const missing = ['email', source.role_claim].some((name) => name !== null && claims[name] === undefined);
    const more =
      missing && metadata.userinfo_endpoint
        ? await oidc.fetchUserInfo(config, tokens.access_token, claims.sub)
        : {};
    return profileOf(source, { ...more, ...claims });
  } catch (error) {
    const { message, cause } = error as Error;
    const reason = cause instanceof Error ? `${message}: ${cause.message}` : message;
    ctx.log.warn({ provider: source.name, phase: progress.phase, reason }, 'a sign-in by a provider failed');
    throw refusalOf(progress);
  } finally {
    issuer.keys = oidc.getJwksCache(config) ?? issuer.keys;
  }
}

function refusalOf({ phase, unreachable }: Progress): ApiError {
  if (unreachable) return providerUnavailable();
  if (phase === 'response') return invalidState();
  if (phase === 'id_token')
    return new ApiError(401, 'SSO_ID_TOKEN_INVALID', 'The identity provider gave a token that is not valid.');
  return new ApiError(
    502,
    'SSO_TOKEN_EXCHANGE_FAILED',
    'The identity provider did not accept the sign-in. Begin it anew.',
  );
}

export const invalidState = () =>
  badRequest(
    'SSO_INVALID_STATE',
    'This sign-in was not begun in this browser, or it has ended. Begin it anew.',
  );

function profileOf(source: Source, claims: Record<string, unknown> & { iss: string; sub: string }): Profile {
  const email = typeof claims.email === 'string' ? canonicalEmail(claims.email) : undefined;
  const name = typeof claims.name === 'string' ? kept(claims.name) : undefined;
  const values = source.role_claim === null ? [] : [claims[source.role_claim]].flat();
  return {
    issuer: claims.iss,
    subject: claims.sub,
    email,
    emailVerified: email !== undefined && claims.email_verified === true && ownsEmail(source, email, claims),
    name: name || undefined,
    roleValues: values.filter((value): value is string => typeof value === 'string'),
  };
}

/**
 * Google verified an address of a foreign domain once, when the account was made; only for its own mail and for domains
 * it hosts does it know whose the address is now.
 */
const ownsEmail = ({ isGoogle }: Source, email: string, { hd }: Record<string, unknown>): boolean =>
  !isGoogle || email.endsWith('@gmail.com') || typeof hd === 'string';

/** A text that the database can keep. */
const kept = (text: string): string =>
  text
    .toWellFormed()
    .replace(/\p{Cc}+/gu, ' ')
    .trim()
    .slice(0, 255)
    .toWellFormed();
