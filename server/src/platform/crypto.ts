import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';

/** Keys derived from the two configured secrets (HKDF, RFC 5869), one a purpose, so that none is used for two things. */
export interface Keys {
  cursor: Buffer;
  credential: Buffer;
  refresh: Buffer;
  encryption: Buffer;
  databaseRole: string;
}

export function deriveKeys(secretKey: string, encryptionKey: string): Keys {
  const derive = (secret: string, purpose: string) =>
    Buffer.from(hkdfSync('sha256', secret, 'manushya', purpose, 32));
  return {
    cursor: derive(secretKey, 'cursor'),
    credential: derive(secretKey, 'credential'),
    refresh: derive(secretKey, 'refresh token'),
    encryption: derive(encryptionKey, 'encryption'),
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
export function encrypt(key: Buffer, plain: string | Buffer, context: string): Buffer {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(context));
  const body = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), body]);
}

/** @throws Error when the key, the context or a single bit differs */
export function decrypt(key: Buffer, sealed: Buffer, context: string): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12))
    .setAAD(Buffer.from(context))
    .setAuthTag(sealed.subarray(12, 28));
  return Buffer.concat([decipher.update(sealed.subarray(28)), decipher.final()]);
}
