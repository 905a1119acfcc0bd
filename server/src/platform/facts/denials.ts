import type { App, Ctx, Permission, Target } from '../context.ts';
import type { Statement } from '../db/sql.ts';
import { isDatabaseUnavailable } from '../errors.ts';
import { perApp } from '../per-app.ts';
import { type FactInput, fact } from './record.ts';

// Refusals do not change state, so they need no transaction of their own: they are gathered and written in batches,
// off the request path (where their writing would also show in the time of the answer). The buffer is bounded; a flood
// of refusals is counted rather than kept one by one.
const limit = 2_000;
interface Waiting {
  byTenant: Map<string, Statement[]>;
  size: number;
  dropped: number;
}
const bufferOf = perApp((): Waiting => ({ byTenant: new Map(), size: 0, dropped: 0 }));

/** Remembers that a request was refused, to be written as a fact soon; `more` is what its data say besides. */
export function recordDenial(
  ctx: Ctx,
  permission: Permission,
  target: Target | undefined,
  decision: { policy_id: string | null; reason: string },
  more: Record<string, unknown> = {},
): void {
  const [resource] = permission.split(':') as [string];
  recordSoon(ctx, {
    type: 'access.denied',
    resource_type: resource,
    ...(target?.id === undefined ? {} : { resource_id: target.id }),
    outcome: 'failure',
    data: {
      permission,
      policy_id: decision.policy_id,
      reason: decision.reason,
      method: ctx.request?.method,
      path: ctx.request?.path,
      ...more,
    },
  });
}

/** Remembers a fact about something that failed and changed nothing, to be written soon. */
export function recordSoon(ctx: Ctx, input: FactInput): void {
  const buffer = bufferOf(ctx.app);
  if (buffer.size >= limit) {
    buffer.dropped += 1;
    return;
  }
  const statement = fact(ctx, input);
  const waiting = buffer.byTenant.get(ctx.tenant);
  if (waiting) waiting.push(statement);
  else buffer.byTenant.set(ctx.tenant, [statement]);
  buffer.size += 1;
}

/** Writes the gathered refusals. What can not be written stays for the next time. */
export async function flushDenials(app: App): Promise<void> {
  const buffer = bufferOf(app);
  const { byTenant, dropped } = buffer;
  if (byTenant.size === 0) return;
  buffer.byTenant = new Map();
  buffer.size = 0;
  buffer.dropped = 0;
  if (dropped) app.log.warn({ dropped }, 'more refusals than are kept one by one');
  for (const [tenant, statements] of byTenant) {
    try {
      await app.database.tenant(tenant).batch(statements);
    } catch (error) {
      if (!isDatabaseUnavailable(error)) {
        // Trying again would fail again, and take the room of others.
        app.log.error(
          { err: error, tenant_id: tenant, lost: statements.length },
          'refusals can not be written',
        );
        continue;
      }
      app.log.warn({ err: error, tenant_id: tenant }, 'refusals could not be written yet');
      buffer.byTenant.set(tenant, [...statements, ...(buffer.byTenant.get(tenant) ?? [])]);
      buffer.size += statements.length;
    }
  }
}
