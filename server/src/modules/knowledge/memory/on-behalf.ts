import type { Actor, Ctx } from '#platform/context.ts';
import { activeIdentity } from '../../access/identity/service.ts';

/** Work that goes on after its request: it is decided, recorded and limited as the one who asked for it. */
export const onBehalfOf = (ctx: Ctx, actor: Actor, requestId: string): Ctx => ({ ...ctx, actor, requestId });

/**
 * The same for those who asked for it as they are now: a role or claim that was taken away meanwhile gives nothing any more.
 * Undefined when one of them can not do anything any more.
 */
export async function asTheyAreNow(ctx: Ctx): Promise<Ctx | undefined> {
  const { app, tenant, actor } = ctx;
  if (actor.type === 'system' || actor.identity_id === undefined) return ctx;
  const [who, ...agents] = await Promise.all(
    [actor, ...(actor.delegation?.agents ?? [])].map(async ({ identity_id }) => {
      const found = await activeIdentity(app, tenant, identity_id!);
      return (
        found && {
          identity_id: found.id,
          external_id: found.external_id,
          role: found.role,
          claims: found.claims,
        }
      );
    }),
  );
  if (!who || !agents.every((agent) => agent !== undefined)) return undefined;
  const delegation = actor.delegation && { ...actor.delegation, agents };
  return { ...ctx, actor: { ...actor, ...who, ...(delegation ? { delegation } : {}) } };
}
