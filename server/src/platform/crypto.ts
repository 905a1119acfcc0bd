import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import type { Config } from './config.ts';

/** A key that encrypts, and the one before it, which only opens what was encrypted with it. */
export interface KeyRing {
  current: Buffer;
  previous: Buffer | undefined;
}

/** Keys derived from the configured secrets (HKDF, RFC 5869), one a purpose, so that none is used for two things. */
export interface Keys {
  cursor: Buffer;
  credential: Buffer;
  refresh: Buffer;
  /** For what the installation itself keeps. */
  encryption: KeyRing;
  /** Wraps the data keys of tenants. */
  dataKeys: KeyRing;
  databaseRole: string;
}

export function keysOf({ secretKey, encryptionKey, encryptionKeyPrevious: previousKey }: Config): Keys {
  const derive = (secret: string, purpose: string) =>
    Buffer.from(hkdfSync('sha256', secret, 'manushya', purpose, 32));
  const ring = (purpose: string): KeyRing => ({
    current: derive(encryptionKey, purpose),
    previous: previousKey === undefined ? undefined : derive(previousKey, purpose),
  });
  return {
    cursor: derive(secretKey, 'cursor'),
    credential: derive(secretKey, 'credential'),
    refresh: derive(secretKey, 'refresh token'),
    encryption: ring('encryption'),
    dataKeys: ring('data keys'),
    databaseRole: derive(secretKey, 'database role').toString('base64url'),
  };
}

export const sha256 = (data: string | Buffer): Buffer => createHash('sha256').update(data).digest();
export const hmac = (key: Buffer, data: string): Buffer => createHmac('sha256', key).update(data).digest();

/** Constant-time comparison that also takes different lengths. */
export const sameBytes = (a: Buffer, b: Buffer): boolean => a.length === b.length && timingSafeEqual(a, b);

/**
 * AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce: nonce | tag | ciphertext.
 * @param context bound as additional data, e.g. tenant and row, so that a value can not be moved elsewhere
 */
export function encrypt(key: Buffer | KeyRing, plain: string | Buffer, context: string): Buffer {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', Buffer.isBuffer(key) ? key : key.current, nonce).setAAD(
    Buffer.from(context),
  );
  const body = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), body]);
}

/** @throws Error when the key, the context or a single bit differs */
export function decrypt(key: Buffer | KeyRing, sealed: Buffer, context: string): Buffer {
  if (Buffer.isBuffer(key)) return opened(key, sealed, context);
  try {
    return opened(key.current, sealed, context);
  } catch (error) {
    if (!key.previous) throw error;
    return opened(key.previous, sealed, context);
  }
}

function opened(key: Buffer, sealed: Buffer, context: string): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12))
    .setAAD(Buffer.from(context))
    .setAuthTag(sealed.subarray(12, 28));
  return Buffer.concat([decipher.update(sealed.subarray(28)), decipher.final()]);
}
