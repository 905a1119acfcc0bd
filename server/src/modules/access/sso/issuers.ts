import * as oidc from 'openid-client';
import type { App } from '#platform/context.ts';
import { unavailable } from '#platform/errors.ts';
import { FetchRefused } from '#platform/fetch.ts';
import { perApp } from '#platform/per-app.ts';
import {
  type Judge,
  judgedByKind,
  type OutsideCalls,
  outsideCalls,
  Permanent,
} from '#platform/resilience.ts';

/** An issuer as this process knows it: how it is called, what it published, and its keys. */
export interface Issuer {
  reads: OutsideCalls;
  writes: OutsideCalls;
  metadata: Promise<oidc.ServerMetadata> | undefined;
  /** When its metadata is asked for again, on the clock of `performance.now`. */
  until: number;
  /** The library renews them: after five minutes, and for an unknown key at most once a minute. */
  keys: oidc.ExportedJWKSCache | undefined;
}

/** Longest answer of an issuer that is read. */
const mostBytes = 512 * 1024;
const metadataMs = 15 * 60_000;
const mostIssuers = 500;

const issuersOf = perApp(() => new Map<string, Issuer>());

class TooMany extends Error {
  override name = 'TooMany';
}

/** Tenants share an issuer with clients of their own there: one that asks too much is not held against the others. */
const judge: Judge = (error) =>
  error instanceof TooMany ? { repeat: true, outage: false } : judgedByKind(error);

export function issuerOf(app: App, address: string): Issuer {
  const issuers = issuersOf(app);
  const timeoutMs = app.config.EXT_CALL_TIMEOUT_MS;
  const issuer = issuers.get(address) ?? {
    // A person waits for it: one repetition is what there is time for.
    reads: outsideCalls({ timeoutMs, retries: Math.min(1, app.config.EXT_RETRY_MAX_ATTEMPTS), judge }),
    // A code sent twice looks stolen, and takes back what it was exchanged for (RFC 6749, section 4.1.2).
    writes: outsideCalls({ timeoutMs, retries: 0, judge }),
    metadata: undefined,
    until: 0,
    keys: undefined,
  };
  // The ones that nobody signs in by are forgotten first.
  issuers.delete(address);
  issuers.set(address, issuer);
  if (issuers.size > mostIssuers) issuers.delete(issuers.keys().next().value!);
  return issuer;
}

/** How far a call has come, and what was in its way. */
export interface Progress {
  phase: 'response' | 'exchange' | 'id_token' | 'userinfo';
  /** Set when the provider could not be reached, or said that it can not work now. */
  unreachable?: unknown;
}

/** The fetch that the library is given: guarded, limited in time and size, without redirects. */
export const fetchOf =
  (app: App, issuer: Issuer, progress: Progress): oidc.CustomFetch =>
  async (url, init) => {
    const policy = init.method === 'GET' ? issuer.reads : issuer.writes;
    if (init.method === 'POST') progress.phase = 'exchange';
    try {
      const answer = await policy.execute(({ signal }) => send(app, url, init, signal));
      if (init.method === 'POST' && hasIdToken(answer)) progress.phase = 'id_token';
      const { status, headers, body } = answer;
      return new Response(body.length > 0 ? new Uint8Array(body) : null, { status, headers });
    } catch (error) {
      progress.unreachable = error;
      throw error;
    }
  };

interface Answered {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

async function send(
  app: App,
  address: string,
  { method, headers, body }: oidc.CustomFetchOptions,
  signal: AbortSignal,
): Promise<Answered> {
  const url = new URL(address);
  if (url.protocol !== 'https:' && !app.outside.allows(url))
    throw new Permanent('a provider names an address without TLS');
  try {
    const response = await app.outside.fetch(url, {
      method,
      headers,
      body: body === undefined || body === null ? null : String(body),
      redirect: 'manual',
      signal,
    });
    const { status } = response;
    if (status === 429) throw new TooMany('a provider answered 429');
    if (status >= 500 || status < 200) throw new Error(`a provider answered ${status}`);
    const kept = ['content-type', 'www-authenticate'].flatMap((name) => {
      const value = response.headers.get(name);
      return value === null ? [] : [[name, value] as const];
    });
    return { status, headers: Object.fromEntries(kept), body: await limited(response.body) };
  } catch (error) {
    const refusal = [error, (error as Error).cause].find((one) => one instanceof FetchRefused);
    throw refusal ? new Permanent((refusal as Error).message) : error;
  }
}

async function limited(body: AsyncIterable<Uint8Array> | null): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body ?? []) {
    size += part.length;
    // Leaving the loop gives the connection up.
    if (size > mostBytes) throw new Permanent('a provider answered more than is read');
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function hasIdToken({ status, body }: Answered): boolean {
  try {
    return status === 200 && typeof JSON.parse(body.toString()).id_token === 'string';
  } catch {
    return false;
  }
}

const isSafe = (app: App, address: unknown): boolean =>
  typeof address === 'string' &&
  URL.canParse(address) &&
  (new URL(address).protocol === 'https:' || isPlain(app, address));

/** Plain http is for hosts the operator allows, as in tests. */
export const isPlain = (app: App, address: string): boolean =>
  address.startsWith('http:') && app.outside.allows(new URL(address));

/**
 * What an issuer publishes of itself (OpenID Connect Discovery 1.0), at most a quarter of an hour old.
 * @throws ApiError 503 SSO_PROVIDER_UNAVAILABLE
 */
export async function metadataOf(app: App, address: string, issuer: Issuer): Promise<oidc.ServerMetadata> {
  if (!issuer.metadata || performance.now() > issuer.until) {
    issuer.until = performance.now() + metadataMs;
    const asked = discover(app, address, issuer);
    issuer.metadata = asked;
    asked.catch(() => {
      if (issuer.metadata === asked) issuer.metadata = undefined;
    });
  }
  try {
    return await issuer.metadata;
  } catch (error) {
    app.log.warn({ err: error, issuer: address }, 'a provider of identities can not be asked');
    throw providerUnavailable();
  }
}

async function discover(app: App, address: string, issuer: Issuer): Promise<oidc.ServerMetadata> {
  const progress: Progress = { phase: 'response' };
  // The client's name plays no part in it.
  const config = await oidc.discovery(new URL(address), 'manushya', undefined, undefined, {
    [oidc.customFetch]: fetchOf(app, issuer, progress),
    execute: isPlain(app, address) ? [oidc.allowInsecureRequests] : [],
  });
  const metadata = config.serverMetadata();
  // The library lets some well-known providers speak for others.
  if (new URL(metadata.issuer).href !== new URL(address).href)
    throw new Error('the provider publishes itself under another issuer');
  for (const name of ['authorization_endpoint', 'token_endpoint', 'jwks_uri'] as const)
    if (!isSafe(app, metadata[name])) throw new Error(`the provider has no ${name} that can be used`);
  return { ...metadata };
}

export const providerUnavailable = () =>
  unavailable(
    'SSO_PROVIDER_UNAVAILABLE',
    'The identity provider does not answer right now. Sign in again later.',
    30,
  );
