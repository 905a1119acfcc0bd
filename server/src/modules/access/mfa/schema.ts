import { type Static, Type as T } from 'typebox';

const Code = T.String({ maxLength: 20, description: 'Six digits of the authenticator' });
const BackupCode = T.String({ maxLength: 40, description: 'One of the backup codes, instead of the code' });

/** Proof of the second factor: a code of the authenticator, or a backup code in its place. */
export const Factor = T.Object(
  { code: T.Optional(Code), backup_code: T.Optional(BackupCode) },
  { additionalProperties: false },
);
export type Factor = Static<typeof Factor>;

export const MfaSetup = T.Object({
  secret: T.String({ description: 'Base32, for typing it in' }),
  qr_code: T.String({ description: 'PNG as a data URL' }),
  setup_url: T.String({ description: 'otpauth://totp/…' }),
  backup_codes: T.Array(T.String(), { description: 'Shown once; each works once' }),
});

export const MfaVerify = T.Object({ token: Code }, { additionalProperties: false });
export type MfaVerify = Static<typeof MfaVerify>;

export const MfaRegenerate = T.Object({ code: Code }, { additionalProperties: false });
export type MfaRegenerate = Static<typeof MfaRegenerate>;

export const BackupCodes = T.Object({ backup_codes: T.Array(T.String()) });

export const MfaChallenge = T.Object(
  { mfa_token: T.String({ maxLength: 300 }), ...Factor.properties },
  { additionalProperties: false },
);
export type MfaChallenge = Static<typeof MfaChallenge>;

const Time = T.Union([T.String(), T.Null()]);

export const MfaStatus = T.Object({
  enabled: T.Boolean(),
  setup_time: Time,
  enabled_time: Time,
  backup_codes_remaining: T.Integer(),
  backup_codes_regenerated: Time,
});
export type MfaStatus = Static<typeof MfaStatus>;

/** What a sign-in answers whose second factor is awaited. */
export const MfaRequired = T.Object({
  mfa_required: T.Literal(true),
  mfa_token: T.String({ description: 'For POST /v1/auth/mfa/challenge and nothing else' }),
  expires_in: T.Integer({ description: 'Seconds' }),
});
export type MfaRequired = Static<typeof MfaRequired>;
