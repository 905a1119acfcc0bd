// The process that reads strangers' files: one at a time, as the server hands them over. It may run out of memory, crash
// or be killed; it has no secrets in its environment and reads no files but its own program.
import { answer, type ParseRequest } from './parse.ts';

// A Ctrl-C reaches the whole group of processes; when this one ends is for the server to say.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
process.on('disconnect', () => process.exit(0));
process.on('message', async (request) => {
  process.send!(await answer(request as ParseRequest));
});
