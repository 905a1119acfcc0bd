/**
 * Loaded into the server with `--import`: SIGUSR2 starts a CPU profile, the next SIGUSR2 ends it and writes it to
 * BENCH_PROFILE. So a profile holds one load and not the start of the process.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { isMainThread } from 'node:worker_threads';

const file = process.env.BENCH_PROFILE;
if (isMainThread && file) {
  const session = new Session();
  let profiling = false;
  const toggle = async () => {
    profiling = !profiling;
    if (profiling) {
      session.connect();
      await session.post('Profiler.enable');
      await session.post('Profiler.setSamplingInterval', { interval: 400 });
      await session.post('Profiler.start');
      return;
    }
    const { profile } = await session.post('Profiler.stop');
    session.disconnect();
    writeFileSync(`${file}.part`, JSON.stringify(profile));
    renameSync(`${file}.part`, file);
  };
  process.on('SIGUSR2', () => void toggle());
}
