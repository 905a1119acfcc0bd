/** The statements of a search alone, in a process of its own: answers `{ tenant, queries }` with the milliseconds that each takes. */
import { openReplay } from './replay.ts';

const replay = await openReplay(process.env as Record<string, string>);

process.on('message', async ({ tenant, queries }: { tenant: string; queries: string[] }) => {
  try {
    process.send!({ value: await replay.time(tenant, queries, 'hybrid') });
  } catch (error) {
    process.send!({ error: (error as Error).message });
  }
});
process.on('SIGTERM', async () => {
  await replay.close();
  process.exit(0);
});
process.send!({ value: 'ready' });
