import type { App } from '#platform/context.ts';
import type { Schedule } from '#platform/jobs/schedule.ts';
import { removeOldAudio } from './audio.ts';
import { deleteOldEvents, listTenantsWithOldEvents } from './event-store.ts';
import { endAllLostRuns } from './record.ts';

const batch = 100;

/** Removes the events of runs that can not be read again any more. */
async function pruneEvents(app: App): Promise<void> {
  const now = new Date();
  for (const { tenant_id } of await listTenantsWithOldEvents(app.database.operator, now)) {
    const db = app.database.tenant(tenant_id);
    for (let count = batch; count === batch; )
      count = await db.transaction((tx) => deleteOldEvents(tx, now, batch));
  }
}

export const runSchedules: Schedule[] = [
  { name: 'runs.lost', pattern: '*/5 * * * * *', run: endAllLostRuns },
  { name: 'runs.events', pattern: '20 * * * * *', run: pruneEvents },
  { name: 'runs.audio', pattern: '50 * * * * *', run: removeOldAudio },
];
