import { type App, systemCtx } from '#platform/context.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { Schedule } from '#platform/jobs/schedule.ts';
import { jobStates } from '#platform/jobs/states.ts';
import type { JobDefinition } from '#platform/jobs/worker.ts';
import { giveUpMail, sendMail } from './service.ts';
import { listUnsent } from './store.ts';

const send = 'mails.send';

export const mailJobs: JobDefinition[] = [
  {
    name: send,
    follows: ['mail.queued'],
    per: 'fact',
    concurrency: 2,
    timeoutS: 60,
    // With the queue's back-off of at most a minute: some six hours.
    retries: 360,
    run: (ctx, { resource_id }) => sendMail(ctx, resource_id!),
    failed: (ctx, { resource_id }, reason) => giveUpMail(ctx, resource_id!, reason),
  },
];

const waitMs = 60_000;

/** Gives mails whose job was never made another one, and ends those whose job ended without a word. */
async function mendUnsent(app: App): Promise<void> {
  const unsent = await listUnsent(app.database.operator, new Date(Date.now() - waitMs));
  const ids = unsent.map(({ id }) => id);
  const states = await jobStates(app, send, ids);
  for (const { tenant_id, id } of unsent) {
    const state = states.get(id);
    if (!state) await app.enqueue(send, [{ tenant_id, fact_id: id, resource_id: id, data: {} }]);
    else if (state === 'ended')
      await giveUpMail(systemCtx(app, tenant_id, uuidv7()), id, new Error('its job was broken off'));
  }
}

export const mailSchedules: Schedule[] = [{ name: 'mails.unsent', pattern: '45 * * * * *', run: mendUnsent }];
