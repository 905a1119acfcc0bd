import type { Actor, Ctx } from '#platform/context.ts';
import { activeIdentity } from '../../access/identity/service.ts';

/** Work that goes on after its request: it is decided, recorded and limited as the one who asked for it. */
export const onBehalfOf = (ctx: Ctx, actor: Actor, requestId: string): Ctx => ({ ...ctx, actor, requestId });

/** False when the one who asked for it can not do anything any more. */
export async function isStillActive({ app, tenant, actor }: Ctx): Promise<boolean> {
  if (actor.type === 'system' || actor.identity_id === undefined) return true;
  const ids = [actor.identity_id, ...(actor.delegation?.agents.map((agent) => agent.identity_id) ?? [])];
  for (const id of ids) if (!(await activeIdentity(app, tenant, id))) return false;
  return true;
}
