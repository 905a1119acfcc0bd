import { inspect } from 'node:util';

/** A reporter of node:test that writes only the totals and what failed, as JSON, once the whole run is over. */
export default async function* testCounts(events) {
  const failures = [];
  for await (const { type, data } of events) {
    // A suite that failed because of a test in it says nothing more.
    if (type === 'test:fail' && data.details.error.failureType !== 'subtestsFailed')
      failures.push(
        `${data.file}:${data.line} ${data.name}\n${inspect(data.details.error.cause).slice(0, 2_000)}`,
      );
    // A run with process isolation also sends one summary a file.
    if (type !== 'test:summary' || data.file !== undefined) continue;
    const { passed, failed, cancelled, skipped, todo } = data.counts;
    yield JSON.stringify({ passed, failed: failed + cancelled, skipped: skipped + todo, failures });
  }
}
