import type { Schedule } from '#platform/jobs/schedule.ts';
import { workResetRequests } from './reset.ts';
import { pruneResetRequests, pruneResets } from './store.ts';

export const passwordSchedules: Schedule[] = [
  // A request names nobody's tenant, so no fact, and no job, can follow from it: the table is the queue.
  { name: 'passwords.resets', pattern: '*/2 * * * * *', run: workResetRequests },
  {
    name: 'passwords.prune',
    pattern: '0 13 * * * *',
    run: async ({ database }) => {
      const now = Date.now();
      await pruneResets(database.operator, new Date(now));
      await pruneResetRequests(database.operator, new Date(now - 3_600_000));
    },
  },
];
