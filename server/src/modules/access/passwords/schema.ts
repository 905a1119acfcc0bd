import { type Static, Type as T } from 'typebox';
import { IdentityCreate, IdentityCreated, rolePattern } from '../identity/service.ts';
import { Factor, MfaRequired } from '../mfa/service.ts';

const Username = T.String({ minLength: 1, maxLength: 255 });
/** Longer than any password may be, so that its length is told as what it is: a rule for passwords. */
const Password = T.String({ minLength: 1, maxLength: 1_024 });
// Nothing that a mail header or a list of addresses gives a meaning to.
const Email = T.String({
  maxLength: 254,
  pattern:
    '^[^\\s@<>()\\[\\]\\\\,;:"\\u0000-\\u001f\\u007f]{1,64}@[^\\s@<>()\\[\\]\\\\,;:"\\u0000-\\u001f\\u007f]+$',
});
const Tenant = T.String({
  maxLength: 64,
  description: 'Whose account is meant, where several tenants have the name; unset: the oldest',
});

export const Register = T.Object(
  {
    username: Username,
    password: Password,
    email: T.Optional(Email),
    role: T.Optional(
      T.String({
        pattern: rolePattern,
        description: 'Default: user; admin of the new tenant without a credential',
      }),
    ),
    name: IdentityCreate.properties.name,
  },
  { additionalProperties: false },
);
export type Register = Static<typeof Register>;

export const Login = T.Object(
  { username: Username, password: Password, tenant: T.Optional(Tenant) },
  { additionalProperties: false },
);
export type Login = Static<typeof Login>;

export const LoginAnswer = T.Union([IdentityCreated, MfaRequired]);

export const PasswordChange = T.Object(
  { old_password: Password, new_password: Password },
  { additionalProperties: false },
);
export type PasswordChange = Static<typeof PasswordChange>;

export const PasswordChanged = T.Object({
  message: T.String(),
  sessions_revoked: T.Integer({ description: 'Other sessions that ended by this' }),
});

export const ResetRequest = T.Object(
  { email: T.Optional(Email), username: T.Optional(Username), tenant: T.Optional(Tenant) },
  { additionalProperties: false },
);
export type ResetRequest = Static<typeof ResetRequest>;

export const ResetConfirm = T.Object(
  { token: T.String({ maxLength: 300 }), new_password: Password },
  { additionalProperties: false },
);
export type ResetConfirm = Static<typeof ResetConfirm>;

export const MfaDisable = T.Object(
  {
    password: T.Optional(Password),
    ...Factor.properties,
  },
  { additionalProperties: false },
);
export type MfaDisable = Static<typeof MfaDisable>;

export const Message = T.Object({ message: T.String() });
