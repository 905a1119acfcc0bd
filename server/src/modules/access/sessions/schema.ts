import { type Static, Type as T } from 'typebox';
import { Identity } from '../identity/service.ts';

const Maybe = T.Union([T.String(), T.Null()]);

export const Session = T.Object({
  id: T.String(),
  identity_id: T.String(),
  device_info: T.Object(
    {
      user_agent: Maybe,
      ip_address: Maybe,
      platform: T.String({ description: 'mobile, tablet, windows, mac, linux or unknown' }),
      browser: T.String({ description: 'chrome, firefox, safari, edge or unknown' }),
    },
    { description: 'What signed in' },
  ),
  ip_address: T.Union([T.String(), T.Null()], { description: 'Where it was used last' }),
  user_agent: Maybe,
  is_active: T.Boolean(),
  is_current: T.Boolean({ description: 'The session that asks' }),
  expires_at: T.String({ description: 'Fixed at the sign-in' }),
  last_used_at: T.String(),
  created_at: T.String(),
  updated_at: T.String(),
  tenant_id: T.String(),
});
export type Session = Static<typeof Session>;

export const Tokens = T.Object({
  access_token: T.String(),
  refresh_token: T.String(),
  token_type: T.Literal('bearer'),
  expires_in: T.Integer({ description: 'Seconds the access token lives' }),
});
export type Tokens = Static<typeof Tokens>;

export const RefreshRequest = T.Object(
  { refresh_token: T.String({ minLength: 1, maxLength: 8_192 }) },
  { additionalProperties: false },
);

export const SessionsRevoked = T.Object({ message: T.String(), revoked_count: T.Integer() });
export const SessionsCleaned = T.Object({ message: T.String(), cleaned_count: T.Integer() });
export const SessionTested = T.Object({ message: T.String(), identity: Identity });
export const SessionParams = T.Object({ session_id: T.String() });
