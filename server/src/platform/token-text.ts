import { randomBytes } from 'node:crypto';

/** What a token's text names: a row of a tenant. */
export interface TokenText {
  tenant: string;
  id: string;
}

/**
 * A new token: `<prefix>_<tenant>_<id>_<secret>`. Tenant and id find its row without a search over all tenants, 256 random
 * bits are the secret. Store `hmac` of the whole text only.
 * @param id a UUID
 */
export const makeTokenText = (prefix: string, tenant: string, id: string): string =>
  `${prefix}_${tenant}_${id.replaceAll('-', '')}_${randomBytes(32).toString('base64url')}`;

const form =
  /^([a-z]{2,8})_([a-z0-9][a-z0-9._-]{0,63})_([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})_[A-Za-z0-9_-]{43}$/;

/** @returns undefined when the text is not a token with this prefix */
export function parseTokenText(prefix: string, text: string): TokenText | undefined {
  const [, given, tenant, ...id] = form.exec(text) ?? [];
  return given === prefix ? { tenant: tenant!, id: id.join('-') } : undefined;
}
