import { Cron } from 'croner';
import type { App } from '../context.ts';

/** Work the clock asks for. It must be harmless when several processes do it at once. */
export interface Schedule {
  name: string;
  /** Cron pattern with seconds. */
  pattern: string;
  /** It is about what this process itself remembers, so it runs in every process; others run where the worker is. */
  own?: true;
  run: (app: App) => Promise<void>;
}

/** Starts the schedules; a run that is still going is not started again. */
export function startSchedules(app: App, schedules: Schedule[]): { stop: () => Promise<void> } {
  const active = new Set<Promise<void>>();
  const crons = schedules.map(
    ({ name, pattern, run }) =>
      new Cron(pattern, { protect: true, utcOffset: 0 }, async () => {
        const work = run(app).catch((error) =>
          app.log.warn({ err: error, schedule: name }, 'scheduled work failed and will be tried again'),
        );
        active.add(work);
        await work;
        active.delete(work);
      }),
  );
  return {
    stop: async () => {
      for (const cron of crons) cron.stop();
      await Promise.all(active);
    },
  };
}
