import { randomInt } from 'node:crypto';
import { Secret, TOTP } from 'otpauth';
import type { Keys } from '#platform/crypto.ts';
import { hmac } from '#platform/crypto.ts';

const issuer = 'Manushya.ai';
const periodS = 30;

/** 160 bits, as RFC 4226 recommends (section 4, R6). */
export const newSecret = (): Buffer => Buffer.from(new Secret({ size: 20 }).bytes);

const totpOf = (secret: Buffer, label: string) =>
  new TOTP({
    issuer,
    label,
    secret: new Secret({ buffer: Uint8Array.from(secret).buffer }),
    algorithm: 'SHA1',
    digits: 6,
    period: periodS,
  });

/** What an authenticator is set up with. */
export async function enrolment(secret: Buffer, label: string) {
  const totp = totpOf(secret, label);
  const url = totp.toString();
  const { default: QRCode } = await import('qrcode');
  return {
    secret: totp.secret.base32,
    setup_url: url,
    qr_code: await QRCode.toDataURL(url, { type: 'image/png', errorCorrectionLevel: 'M' }),
  };
}

/**
 * The time step (RFC 6238, section 4.2) a code belongs to: the present one or one of its neighbours, as clocks differ.
 * @returns undefined when it is a code of none of them
 */
export function stepOf(secret: Buffer, code: string, now: number): number | undefined {
  const digits = code.replace(/\s/g, '');
  if (!/^[0-9]{6}$/.test(digits)) return undefined;
  const delta = totpOf(secret, '').validate({ token: digits, timestamp: now, window: 1 });
  return delta === null ? undefined : TOTP.counter({ period: periodS, timestamp: now }) + delta;
}

// Without what looks alike: 0 and O, 1, I and L.
const letters = 'ABCDEFGHJKMNPQRSTUVWXYZ23456789';

/** Ten codes of ten characters: 49 bits each. */
export const newBackupCodes = (): string[] =>
  Array.from({ length: 10 }, () =>
    Array.from({ length: 10 }, () => letters[randomInt(letters.length)]).join(''),
  );

/** What is stored of a backup code; as it was typed, with spaces and dashes, in either case. */
export const backupCodeHash = (keys: Keys, tenant: string, identityId: string, code: string): Buffer =>
  hmac(
    keys.credential,
    JSON.stringify(['backup code', tenant, identityId, code.replace(/[\s-]/g, '').toUpperCase()]),
  );
