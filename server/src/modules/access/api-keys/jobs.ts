import { type App, systemCtx } from '#platform/context.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { Schedule } from '#platform/jobs/schedule.ts';
import { flushKeyUses } from './service.ts';
import { listTenantsWithExpired, markExpired } from './store.ts';

const size = 500;

/** Puts on record that the time of keys is over. They are refused from the very millisecond, whether told or not. */
export async function tellExpired(app: App): Promise<void> {
  const now = new Date();
  for (const { tenant_id } of await listTenantsWithExpired(app.database.operator, now)) {
    const ctx = systemCtx(app, tenant_id, uuidv7());
    for (let told = size; told === size && !app.closing.aborted; ) {
      told = await ctx.db.transaction(async (tx) => {
        const keys = await markExpired(tx, now, size);
        await tx.batch(
          keys.map(({ id, ...data }) =>
            fact(ctx, { type: 'api_key.expired', resource_type: 'api_key', resource_id: id, data }),
          ),
        );
        return keys.length;
      });
    }
  }
}

export const apiKeySchedules: Schedule[] = [
  { name: 'api_keys.uses', pattern: '* * * * * *', own: true, run: flushKeyUses },
  { name: 'api_keys.expired', pattern: '35 * * * * *', run: tellExpired },
];
