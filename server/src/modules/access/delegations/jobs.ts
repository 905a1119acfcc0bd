import type { Schedule } from '#platform/jobs/schedule.ts';
import { pruneGrants } from './store.ts';

const keptMs = 30 * 86_400_000;

export const delegationSchedules: Schedule[] = [
  {
    name: 'delegations.prune',
    pattern: '0 17 * * * *',
    run: async (app) => void (await pruneGrants(app.database.operator, new Date(Date.now() - keptMs))),
  },
];
