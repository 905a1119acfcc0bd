import type { Schedule } from '#platform/jobs/schedule.ts';
import { pruneAttempts } from './store.ts';

export const attemptSchedules: Schedule[] = [
  {
    name: 'attempts.prune',
    pattern: '0 11 * * * *',
    run: async (app) => void (await pruneAttempts(app.database.operator, Date.now())),
  },
];
