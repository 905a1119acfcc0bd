/**
 * Measures the server against floors taken in the same run, and prints a table of figures with their targets.
 *
 *   node bench/run.ts [--engine postgres|embedded] [--only start|get|post|search|bulk|profile] [--quick] [--strict]
 *
 * Without --engine both are measured. DATABASE_URL (an empty database with pgvector) and REDIS_URL are used when
 * set; otherwise durable services of the benchmark's own are started.
 */
import { parseArgs } from 'node:util';
import { type Bed, type Engine, makeBed } from './bed.ts';
import { killAll } from './processes.ts';
import { measureEngine, type Options } from './sections.ts';
import { type Figure, machine, tableOf } from './table.ts';

const { values } = parseArgs({
  options: {
    engine: { type: 'string' },
    only: { type: 'string', multiple: true },
    quick: { type: 'boolean', default: false },
    strict: { type: 'boolean', default: false },
  },
});
const engines: Engine[] = values.engine ? [values.engine as Engine] : ['postgres', 'embedded'];
if (engines.some((engine) => engine !== 'postgres' && engine !== 'embedded'))
  throw new Error('--engine must be postgres or embedded');
const options: Options = { quick: values.quick, only: values.only };
const LIMIT_MS = 1_200_000;
const abandoned = setTimeout(() => {
  console.error('the run took too long and was ended');
  killAll();
  process.exit(1);
}, LIMIT_MS);
abandoned.unref();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    killAll();
    process.exit(1);
  });
}

const figures: Figure[] = [];
for (const engine of engines) {
  let bed: Bed | undefined;
  try {
    bed = await makeBed(engine);
    console.log(`\n# ${engine}\n\n${machine(bed.describe)}\n`);
    const from = performance.now();
    const { table, profiles } = await measureEngine(bed, options);
    figures.push(...table);
    console.log(tableOf(table));
    for (const { what, text } of profiles) console.log(`\n## Where the time goes: ${what}\n\n${text}`);
    console.log(`\n${engine}: ${((performance.now() - from) / 1_000).toFixed(0)} s`);
  } finally {
    killAll();
    await bed?.close();
  }
}
const missed = figures.filter(({ target }) => target && !target.met).length;
console.log(`\n${missed === 0 ? 'All targets are met.' : `${missed} targets are missed.`}`);
process.exit(values.strict && missed > 0 ? 1 : 0);
