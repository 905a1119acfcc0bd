import { lookup } from 'node:dns';
import ipaddr from 'ipaddr.js';
import type { Agent, Dispatcher, RequestInit, Response } from 'undici';

/** The address may not be called, or did not answer as it must. Nothing of its answer is in the message. */
export class FetchRefused extends Error {
  override name = 'FetchRefused';
}

/** True for addresses of the public internet; private, loopback, link-local, multicast and mapped ones are not. */
export function isPublicAddress(address: string): boolean {
  if (!ipaddr.isValid(address)) return false;
  return ipaddr.process(address).range() === 'unicast';
}

export interface SendOptions {
  method: 'GET' | 'POST';
  headers: Record<string, string>;
  body: string;
  signal: AbortSignal;
}

export interface GuardedFetch {
  /** @throws FetchRefused, or an error with it as its cause */
  fetch(input: string | URL, init?: RequestInit): Promise<Response>;
  /** The same without the web's streams round the answer: for many short calls, at half of the time. */
  send(input: string | URL, options: SendOptions): Promise<Dispatcher.ResponseData>;
  /** True for a host the operator allows by name. */
  allows(url: URL): boolean;
  close(): Promise<void>;
}

/**
 * A fetch for addresses somebody told us: only http and https, no redirects, no private address — neither as a
 * literal nor behind a name, checked on the very address the connection is made to.
 * @param allowedHosts hosts (with port when not the default) the operator allows although they are private
 * @param connections calls to one host at once; others wait
 */
export function createGuardedFetch(
  allowedHosts: string[],
  timeoutMs: number,
  connections = 32,
): GuardedFetch {
  const allowed = new Set(allowedHosts.map((host) => host.toLowerCase()));
  // Loaded by the first call: a start is a tenth of a second shorter, and most processes never make one.
  const load = async () => {
    const undici = await import('undici');
    const agentOf = (free: boolean): Agent =>
      new undici.Agent({
        connections,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        maxResponseSize: 64 * 1024 * 1024,
        connect: {
          timeout: Math.min(timeoutMs, 10_000),
          ...(free ? {} : { lookup: guardedLookup }),
        },
      });
    return { fetch: undici.fetch, request: undici.request, guarded: agentOf(false), free: agentOf(true) };
  };
  let loaded: ReturnType<typeof load> | undefined;
  const allows = (url: URL) => allowed.has(url.host.toLowerCase()) || allowed.has(url.hostname.toLowerCase());
  const check = async (input: string | URL) => {
    const url = new URL(input);
    if (url.protocol !== 'http:' && url.protocol !== 'https:')
      throw new FetchRefused('only http and https addresses can be called');
    const isAllowed = allows(url);
    const literal = url.hostname.replace(/^\[|\]$/g, '');
    if (!isAllowed && ipaddr.isValid(literal) && !isPublicAddress(literal))
      throw new FetchRefused('the address is not a public one');
    loaded ??= load();
    const { fetch, request, guarded, free } = await loaded;
    return { url, dispatcher: isAllowed ? free : guarded, fetch, request };
  };
  const call = async (input: string | URL, init: RequestInit = {}): Promise<Response> => {
    const { url, dispatcher, fetch } = await check(input);
    return fetch(url, { redirect: 'error', ...init, dispatcher });
  };
  const send = async (input: string | URL, options: SendOptions): Promise<Dispatcher.ResponseData> => {
    const { url, dispatcher, request } = await check(input);
    const answer = await request(url, { ...options, dispatcher });
    if (answer.statusCode < 300 || answer.statusCode > 399) return answer;
    await answer.body.dump();
    throw new FetchRefused('the address leads to another one');
  };
  return {
    fetch: call,
    send,
    allows,
    close: async () => {
      const agents = await loaded;
      await Promise.all([agents?.guarded.close(), agents?.free.close()]);
    },
  };
}

type LookupDone = (
  error: Error | null,
  address: string | { address: string; family: number }[],
  family?: number,
) => void;

function guardedLookup(hostname: string, options: object, done: LookupDone): void {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error) return done(error, []);
    const bad = addresses.find(({ address }) => !isPublicAddress(address));
    if (bad) return done(new FetchRefused('the name leads to an address that is not a public one'), []);
    if ((options as { all?: boolean }).all) return done(null, addresses);
    done(null, addresses[0]!.address, addresses[0]!.family);
  });
}
