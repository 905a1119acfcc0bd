import type { Schedule } from '#platform/jobs/schedule.ts';
import { cleanUpAll } from './cleanup.ts';
import { flushSessionUses } from './service.ts';
import { retireSigningKeys, rotateWhenDue } from './signing-keys.ts';

export const sessionSchedules: Schedule[] = [
  { name: 'sessions.uses', pattern: '* * * * * *', own: true, run: flushSessionUses },
  { name: 'sessions.ended', pattern: '20 17 * * * *', run: cleanUpAll },
  {
    name: 'sessions.signing',
    pattern: '50 */10 * * * *',
    run: async (app) => {
      await rotateWhenDue(app);
      await retireSigningKeys(app);
    },
  },
];
