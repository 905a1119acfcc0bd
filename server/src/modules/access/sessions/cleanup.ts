import { type App, type Ctx, systemCtx } from '#platform/context.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { authorize } from '#platform/permission.ts';
import { listTenantsWithEnded, removeEnded } from './store.ts';

const size = 500;

/** Batches that a request may wait for; the schedule does what is left. */
const perRequest = 20;

/** Removes sessions of the tenant that ended SESSION_KEEP_DAYS ago. @returns how many */
async function removeEndedSessions(ctx: Ctx, batches = Number.POSITIVE_INFINITY): Promise<number> {
  const before = new Date(Date.now() - ctx.app.config.SESSION_KEEP_DAYS * 86_400_000);
  let total = 0;
  for (let i = 0, removed = size; removed === size && i < batches && !ctx.signal.aborted; i++) {
    removed = await ctx.db.transaction(async (tx) => {
      const { length } = await removeEnded(tx, before, size);
      if (length > 0)
        await tx.run(
          fact(ctx, { type: 'session.cleaned', resource_type: 'session', data: { cleaned_count: length } }),
        );
      return length;
    });
    total += removed;
  }
  return total;
}

/** The same, for whoever may end every session of the tenant. @throws ApiError 403 */
export async function cleanUpSessions(ctx: Ctx) {
  await authorize(ctx, 'sessions:delete', {});
  const count = await removeEndedSessions(ctx, perRequest);
  return { message: `Cleaned up ${count} expired sessions`, cleaned_count: count };
}

/** Removes ended sessions of all tenants, one tenant after the other. */
export async function cleanUpAll(app: App): Promise<void> {
  const before = new Date(Date.now() - app.config.SESSION_KEEP_DAYS * 86_400_000);
  for (const { tenant_id } of await listTenantsWithEnded(app.database.operator, before)) {
    if (app.closing.aborted) return;
    await removeEndedSessions(systemCtx(app, tenant_id, uuidv7()));
  }
}
