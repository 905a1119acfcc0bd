import type { Schedule } from '#platform/jobs/schedule.ts';
import { setupMs } from './service.ts';
import { pruneChallenges, pruneSetups } from './store.ts';

export const mfaSchedules: Schedule[] = [
  {
    name: 'mfa.prune',
    pattern: '0 */5 * * * *',
    run: async (app) => {
      const now = Date.now();
      await pruneChallenges(app.database.operator, new Date(now));
      await pruneSetups(app.database.operator, new Date(now - setupMs));
    },
  },
];
