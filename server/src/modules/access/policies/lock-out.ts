import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { conflict } from '#platform/errors.ts';
import { listActiveIdentities } from '../identity/service.ts';
import {
  BUILTIN,
  compileRule,
  decide,
  type Known,
  type PolicySet,
  type PolicyTarget,
  policyContext,
} from '../policy/service.ts';
import type { Content } from './store.ts';

/** Identities that are asked about, admins first. */
const asked = 1_000;

/**
 * True when exchanging one policy for another could take from somebody what concerns policies: a deny that comes, an
 * allow that goes. Most changes are about something else, and need not be looked into.
 */
export function mayLockOut(before: Content | undefined, after: Content | undefined): boolean {
  const loses = before?.is_active && before.effect === 'allow' && concernsPolicies(before);
  const denies = after?.is_active && after.effect === 'deny' && concernsPolicies(after);
  return Boolean(loses || denies);
}

function concernsPolicies({ rule }: Content): boolean {
  try {
    return compileRule(rule).guards.get('resource')?.has('policy') ?? true;
  } catch {
    // A stored deny that does not compile denies its whole role.
    return true;
  }
}

/**
 * Whether a change leaves nobody of the tenant who could change policies, where somebody could before.
 * @param targets the policies that change, as far as they are there afterwards: somebody must be able to change them back
 */
export async function locksOut(
  ctx: Ctx,
  db: Db,
  before: PolicySet,
  after: PolicySet,
  targets: PolicyTarget[],
): Promise<boolean> {
  const { actor } = ctx;
  const caller: Known[] = actor.identity_id
    ? [
        {
          id: actor.identity_id,
          external_id: actor.external_id ?? '',
          role: actor.role,
          claims: actor.claims,
        },
      ]
    : [];
  const wanted = targets.length > 0 ? targets : (['own'] as const);
  const managed = (set: PolicySet, people: Known[]) =>
    people.some((identity) => wanted.every((target) => manages(ctx, set, identity, target)));
  if (managed(after, caller)) return false;
  const people = await listActiveIdentities(db, asked);
  if (managed(after, people)) return false;
  return people.some((identity) => manages(ctx, before, identity, 'own'));
}

/** @throws ApiError 409 POLICY_LOCKS_OUT */
export async function refuseLockOut(...question: Parameters<typeof locksOut>): Promise<void> {
  if (!(await locksOut(...question))) return;
  throw conflict(
    'POLICY_LOCKS_OUT',
    'After this change nobody in your tenant could change policies again. Keep somebody who may, or say force if it is meant.',
  );
}

/** What it takes to change a policy back: to pass the route, and to be let at this very policy. */
function manages(ctx: Ctx, set: PolicySet, identity: Known, target: PolicyTarget | 'own'): boolean {
  const may = (action: string, method: string, about: PolicyTarget | 'own') =>
    decide(
      set,
      BUILTIN,
      policyContext({
        role: identity.role,
        action,
        resource: 'policy',
        tenant_id: ctx.tenant,
        identity,
        target: about,
        request: {
          method,
          path: action === 'list' ? '/v1/policy/' : `/v1/policy/${about === 'own' ? '' : about.id}`,
          ip: ctx.request?.ip ?? null,
          time: new Date(),
          route_class: method === 'GET' ? 'read' : 'mutation',
        },
      }),
    ).allowed;
  return may('list', 'GET', 'own') && may('update', 'PUT', 'own') && may('update', 'PUT', target);
}
