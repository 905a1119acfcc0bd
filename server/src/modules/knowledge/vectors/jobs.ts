import type { Schedule } from '#platform/jobs/schedule.ts';
import type { JobDefinition } from '#platform/jobs/worker.ts';
import type { VectorCollection } from './collection.ts';
import { nudgeRenewal, renewJob, renewTenant } from './renew.ts';
import { nudgeRepair, repairJob, repairTenant, sweepSegments } from './repair.ts';
import { nudgeTending, tendJob, tendTenant } from './tend.ts';

/** Nobody waits for these, and each is found again by what is left to do: they follow from no fact of their own. */
const inTheBackground: Pick<JobDefinition, 'follows' | 'per' | 'concurrency' | 'retries'> = {
  follows: [],
  per: 'tenant',
  concurrency: 1,
  retries: 5,
};

export const vectorJobs = (collections: VectorCollection[]): JobDefinition[] => [
  { ...inTheBackground, name: renewJob, timeoutS: 3_600, run: (ctx) => renewTenant(ctx, collections) },
  { ...inTheBackground, name: tendJob, timeoutS: 3_600, run: (ctx) => tendTenant(ctx, collections) },
  {
    ...inTheBackground,
    name: repairJob,
    timeoutS: 3_600,
    run: async (ctx) => {
      await repairTenant(ctx, collections);
      await tendTenant(ctx, collections);
    },
  },
];

export const vectorSchedules: Schedule[] = [
  { name: 'embeddings.renew', pattern: '*/2 * * * * *', run: nudgeRenewal },
  { name: 'vectors.sweep', pattern: '40 * * * * *', run: sweepSegments },
  { name: 'vectors.tend', pattern: '20 */5 * * * *', run: nudgeTending },
  { name: 'vectors.repair', pattern: '0 17 * * * *', run: nudgeRepair },
];
