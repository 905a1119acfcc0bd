import { type Static, Type as T } from 'typebox';
import { plans } from '#platform/config.ts';
import { slugPattern } from '#platform/ids.ts';

const Plan = T.Union(plans.map((plan) => T.Literal(plan)));
const Name = T.String({ minLength: 1, maxLength: 255, pattern: '\\S' });

export const TenantResource = T.Object({
  id: T.String(),
  name: T.String(),
  plan: T.Union([Plan, T.Null()], { description: 'null: the plan of DEFAULT_PLAN' }),
  is_active: T.Boolean({ description: 'false: every credential of the tenant is refused' }),
  created_at: T.String(),
  updated_at: T.String(),
  deleted_at: T.Union([T.String(), T.Null()], {
    description: 'Since when all that it has is being removed; soon afterwards there is no such tenant',
  }),
});
export type TenantResource = Static<typeof TenantResource>;

export const TenantCreate = T.Object(
  {
    id: T.String({ pattern: slugPattern }),
    name: T.Optional(Name),
    plan: T.Optional(T.Union([Plan, T.Null()])),
  },
  { additionalProperties: false },
);
export type TenantCreate = Static<typeof TenantCreate>;

export const TenantUpdate = T.Object(
  {
    name: T.Optional(Name),
    plan: T.Optional(T.Union([Plan, T.Null()])),
    is_active: T.Optional(T.Boolean()),
  },
  { additionalProperties: false },
);
export type TenantUpdate = Static<typeof TenantUpdate>;

export const TenantParams = T.Object({ tenant_id: T.String() });
