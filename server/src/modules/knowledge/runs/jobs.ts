import type { Schedule } from '#platform/jobs/schedule.ts';
import { endAllLostRuns } from './service.ts';

export const runSchedules: Schedule[] = [
  { name: 'runs.lost', pattern: '*/10 * * * * *', run: endAllLostRuns },
];
