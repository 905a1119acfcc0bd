import type { Schedule } from '#platform/jobs/schedule.ts';
import { rewrapDataKeys } from './service.ts';

export const dataKeySchedules: Schedule[] = [
  {
    name: 'data_keys.rewrap',
    pattern: '20 * * * * *',
    run: async (app) => {
      if (!app.config.encryptionKeyPrevious) return;
      const { rewrapped } = await rewrapDataKeys(app);
      if (rewrapped > 0) app.log.info({ rewrapped }, 'data keys are wrapped with the new ENCRYPTION_KEY');
    },
  },
];
