import { randomBytes } from 'node:crypto';

const form = /^inv_([a-z0-9][a-z0-9._-]{0,63})_([0-9a-f]{32})_[A-Za-z0-9_-]{43}$/;

/** A new token: `inv_<tenant>_<id>_<secret>`. Tenant and id find its row without a search over all tenants; the secret has 256 bits. */
export const makeToken = (tenant: string, id: string): string =>
  `inv_${tenant}_${id.replaceAll('-', '')}_${randomBytes(32).toString('base64url')}`;

/** Where the invitation of a token would stand. A text that is none names a place where nothing can stand, so that it is looked for as long. */
export function placeOf(token: string): { tenant: string; id: string } {
  const [, tenant = '', hex = '0'.repeat(32)] = form.exec(token) ?? [];
  return { tenant, id: hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5') };
}
