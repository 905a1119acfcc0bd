import type { Schedule } from '#platform/jobs/schedule.ts';
import { pruneSignIns } from './service.ts';

export const ssoSchedules: Schedule[] = [{ name: 'sso.prune', pattern: '40 */5 * * * *', run: pruneSignIns }];
