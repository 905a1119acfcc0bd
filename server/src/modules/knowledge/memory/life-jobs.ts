import { type App, systemCtx } from '#platform/context.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { Schedule } from '#platform/jobs/schedule.ts';
import { jobStates } from '#platform/jobs/states.ts';
import type { JobDefinition } from '#platform/jobs/worker.ts';
import { encryptDemanded, tendEncryption } from './demanded.ts';
import { continueErasure } from './erasure.ts';
import { giveUp } from './import-upload.ts';
import { failureOf, runImport, tendImports } from './import-work.ts';
import { giveUpInference, inferFacts } from './inference.ts';
import { listWaitingInferences } from './inference-store.ts';
import { resealAll, tendRetiredKeys } from './reseal.ts';
import { tendErasures } from './sweep.ts';
import { emptyTrash } from './trash.ts';

const infer = 'memory.infer';

/** What follows from changes of memories besides their vectors. */
export const lifeJobs: JobDefinition[] = [
  {
    name: 'memory.import',
    follows: ['memory.import_received'],
    per: 'fact',
    concurrency: 2,
    timeoutS: 3_600,
    retries: 20,
    run: runImport,
    failed: (ctx, { resource_id }, reason) => giveUp(ctx, resource_id!, failureOf(reason)),
  },
  {
    name: 'memory.erase',
    follows: ['memory.erasure_requested'],
    per: 'fact',
    concurrency: 1,
    timeoutS: 3_600,
    retries: 20,
    run: (ctx, { resource_id }) => continueErasure(ctx, resource_id!),
  },
  {
    name: 'memory.reseal',
    follows: ['data_keys.rotated'],
    per: 'tenant',
    concurrency: 1,
    timeoutS: 3_600,
    retries: 20,
    run: resealAll,
  },
  {
    name: 'memory.encrypt',
    follows: ['memory.sensitive_types_set'],
    per: 'tenant',
    concurrency: 1,
    timeoutS: 3_600,
    retries: 20,
    run: encryptDemanded,
  },
  {
    name: infer,
    follows: ['memory.inference_requested'],
    per: 'fact',
    concurrency: 2,
    timeoutS: 300,
    retries: 5,
    run: inferFacts,
    failed: giveUpInference,
  },
];

const waitMs = 30_000;

/** Gives inferences whose job was never made another one, and ends those whose job ended without a word. */
async function tendInferences(app: App): Promise<void> {
  const waiting = await listWaitingInferences(app.database.operator, new Date(Date.now() - waitMs));
  const states = await jobStates(
    app,
    infer,
    waiting.map(({ id }) => id),
  );
  for (const { tenant_id, id } of waiting) {
    const payload = { tenant_id, fact_id: id, resource_id: null, data: {} };
    const state = states.get(id);
    if (!state) await app.enqueue(infer, [payload]);
    else if (state === 'ended')
      await giveUpInference(systemCtx(app, tenant_id, uuidv7()), payload, undefined);
  }
}

export const lifeSchedules: Schedule[] = [
  { name: 'memory.imports', pattern: '*/10 * * * * *', run: tendImports },
  { name: 'memory.erasures', pattern: '*/5 * * * * *', run: tendErasures },
  { name: 'memory.inferences', pattern: '40 * * * * *', run: tendInferences },
  { name: 'memory.retired_keys', pattern: '50 * * * * *', run: tendRetiredKeys },
  { name: 'memory.encryption', pattern: '*/10 * * * * *', run: tendEncryption },
  { name: 'memory.trash', pattern: '0 23 * * * *', run: emptyTrash },
];
