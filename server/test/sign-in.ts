import assert from 'node:assert/strict';
import type { Running } from '../src/app.ts';
import { Browser, type Page } from './browser.ts';
import type { Caller } from './harness.ts';
import type { OidcServer } from './oidc-server.ts';

/** A provider of a tenant, known on both sides. */
export interface Door {
  login: string;
  callback: string;
  /** `<tenant>.<id>` */
  name: string;
}

let made = 0;

/** Configures a provider for an admin's tenant and makes the client known to it. */
export async function openDoor(
  admin: Caller,
  idp: OidcServer,
  more: Record<string, unknown> = {},
): Promise<Door> {
  made += 1;
  const client = `client-${made}`;
  const reply = await admin.call('POST', '/v1/admin/identity/providers', {
    id: `idp-${made}`,
    name: 'The provider of the tests',
    issuer: idp.issuer,
    client_id: client,
    client_secret: `secret of ${client}`,
    jit_enabled: true,
    ...more,
  });
  assert.equal(reply.status, 201, reply.text);
  const { id, tenant_id, client_id, login_url: login, redirect_uri: callback } = reply.body.data;
  idp.register({ client_id, client_secret: `secret of ${client}`, redirect_uris: [callback] });
  return { login, callback, name: `${tenant_id}.${id}` };
}

/** Goes from the login as far as the address the provider sends the browser back to; that one is not asked for yet. */
export async function toCallback(
  server: Running,
  idp: OidcServer,
  { login, callback }: Pick<Door, 'login' | 'callback'>,
  user: string | undefined,
  query: Record<string, string> = {},
): Promise<{ browser: Browser; callback: string }> {
  idp.user = user;
  const browser = new Browser(server);
  const search = new URLSearchParams(query).toString();
  const { url } = await browser.go(search ? `${login}?${search}` : login, callback);
  assert.ok(url.startsWith(callback), `the provider sends the browser to ${url}`);
  return { browser, callback: url };
}

/** A whole sign-in. */
export async function signIn(
  server: Running,
  idp: OidcServer,
  door: Pick<Door, 'login' | 'callback'>,
  user: string | undefined,
): Promise<Page> {
  const { browser, callback } = await toCallback(server, idp, door, user);
  return browser.get(callback);
}
