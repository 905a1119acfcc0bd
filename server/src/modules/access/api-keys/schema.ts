import { type Static, Type as T } from 'typebox';
import { rolePattern } from '../identity/service.ts';

const Maybe = T.Union([T.String(), T.Null()]);
const Name = T.String({ minLength: 1, maxLength: 255, pattern: '\\S' });
const Days = T.Integer({ minimum: 1, maximum: 3_650 });
const Scopes = T.Array(T.String({ maxLength: 100 }), {
  maxItems: 50,
  description:
    'admin, read, write, or resource:action with * for either. None: all that the identity may, or all that the key may that makes it',
});

export const ApiKey = T.Object({
  id: T.String(),
  identity_id: T.String({ description: 'It acts as this identity' }),
  name: T.String(),
  scopes: T.Array(T.String()),
  is_active: T.Boolean({ description: 'false when revoked, paused or past its time' }),
  expires_at: Maybe,
  last_used_at: T.Union([T.String(), T.Null()], { description: 'To the minute' }),
  revoked_at: Maybe,
  created_at: T.String(),
  updated_at: T.String(),
  tenant_id: T.String(),
});
export type ApiKey = Static<typeof ApiKey>;

export const ApiKeyCreate = T.Object(
  {
    name: Name,
    scopes: T.Optional(Scopes),
    expires_in_days: T.Optional(Days),
    identity_id: T.Optional(
      T.String({ description: 'Identity of a lower role that it is to act as; default: the caller' }),
    ),
  },
  { additionalProperties: false },
);
export type ApiKeyCreate = Static<typeof ApiKeyCreate>;

export const ApiKeyUpdate = T.Object(
  {
    name: T.Optional(Name),
    scopes: T.Optional(Scopes),
    is_active: T.Optional(T.Boolean({ description: 'false pauses it until true' })),
    expires_in_days: T.Optional(
      T.Union([Days, T.Null()], { description: 'From now on; null: it does not expire' }),
    ),
  },
  { additionalProperties: false },
);
export type ApiKeyUpdate = Static<typeof ApiKeyUpdate>;

export const ApiKeyMade = T.Object({
  api_key: ApiKey,
  secret_key: T.String({ description: 'Shown only now' }),
});

export const ApiKeyRotate = T.Object(
  {
    overlap_seconds: T.Optional(
      T.Integer({
        minimum: 0,
        maximum: 2_592_000,
        default: 3_600,
        description: 'How long the old secret works beside the new one',
      }),
    ),
  },
  { additionalProperties: false },
);

export const ApiKeyRotated = T.Object({
  api_key: ApiKey,
  secret_key: T.String({ description: 'Shown only now' }),
  old_secret_expires_at: T.String(),
});

export const InactiveApiKey = T.Object({ ...ApiKey.properties, inactive_days: T.Integer() });

export const ApiKeyTested = T.Object({
  message: T.String(),
  identity: T.Object({
    id: T.String(),
    external_id: T.String(),
    role: T.String(),
    tenant_id: T.String(),
  }),
});

export const KeyParams = T.Object({ key_id: T.String() });

/** A key as NexusRAG's clients know it. */
const serviceKey = {
  key_id: T.String(),
  key_prefix: T.String({ description: 'Beginning of the key, without its secret' }),
  name: Maybe,
  role: T.String(),
  created_at: T.String(),
  last_used_at: Maybe,
  expires_at: Maybe,
  revoked_at: Maybe,
  is_active: T.Boolean(),
};
export const ServiceKey = T.Object(serviceKey);
export type ServiceKey = Static<typeof ServiceKey>;
export const ServiceKeyMade = T.Object({
  ...serviceKey,
  api_key: T.String({ description: 'Shown only now' }),
});
export const ServiceKeyList = T.Object({ items: T.Array(ServiceKey) });

const { revoked_at: _, is_active: __, ...serviceKeyKept } = serviceKey;
export const InactiveServiceKeys = T.Object({
  inactive_days_threshold: T.Integer(),
  items: T.Array(T.Object({ ...serviceKeyKept, inactive_days: T.Integer(), is_expired: T.Boolean() })),
});

export const ServiceKeyCreate = T.Object(
  {
    name: T.Optional(Name),
    role: T.String({ pattern: rolePattern, description: 'Role the key acts with; not above your own' }),
    expires_in_days: T.Optional(Days),
  },
  { additionalProperties: false },
);
export type ServiceKeyCreate = Static<typeof ServiceKeyCreate>;
