import { createHash, randomBytes } from 'node:crypto';
import { sameBytes } from '#platform/crypto.ts';

/** The parts of a key's text. */
export interface KeyText {
  tenant: string;
  id: string;
}

const form = /^mk_([a-z0-9][a-z0-9._-]{0,63})_([0-9a-f]{32})_[A-Za-z0-9_-]{43}([0-9a-f]{8})$/;

const checksum = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 8);

/**
 * A new key: `mk_<tenant>_<id>_<secret><checksum>`. The tenant and id find its row without a search over all tenants,
 * 256 random bits are the secret, and the checksum lets a typing error, or a scanner, be told without a look-up.
 */
export function makeKeyText(tenant: string, id: string): string {
  const body = `mk_${tenant}_${id.replaceAll('-', '')}_${randomBytes(32).toString('base64url')}`;
  return body + checksum(body);
}

/** @returns undefined when the text is not a key of ours or was mistyped */
export function parseKeyText(text: string): KeyText | undefined {
  const parts = form.exec(text);
  if (!parts) return undefined;
  const [, tenant, hex, sum] = parts as unknown as [string, string, string, string];
  if (!sameBytes(Buffer.from(checksum(text.slice(0, -8))), Buffer.from(sum))) return undefined;
  return {
    tenant,
    id: `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`,
  };
}

/** The beginning of a key's text that says which it is and opens nothing. */
export const keyPrefix = (tenant: string, id: string): string => `mk_${tenant}_${id.replaceAll('-', '')}`;
