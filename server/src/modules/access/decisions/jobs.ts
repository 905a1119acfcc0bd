import type { Schedule } from '#platform/jobs/schedule.ts';
import { pruneDecisions } from './service.ts';

export const decisionSchedules: Schedule[] = [
  { name: 'decisions.prune', pattern: '30 11 * * * *', run: pruneDecisions },
];
