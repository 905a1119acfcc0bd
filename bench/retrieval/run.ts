/**
 * Measures how well a server finds, through its HTTP API, by default without a neural model: conversations (BEAM), documents
 * (SciFact) and the calibrated scores of short memories; with floors by plain BM25 over the same texts.
 *
 *   npm run bench:retrieval -- [--engine postgres|embedded] [--data DIR] [--only beam|scifact|memories|scores] [--strict]
 *
 *     [--embeddings URL|random|constant|near-constant|oracle] [--model NAME] [--dimensions N]
 *     [--rerank URL|random|constant|near-constant|oracle] [--rerank-model NAME]
 *
 * With a model's address `mode: text` is what the same server finds without it; with a word a fake answers (fake-models.ts).
 * Without --engine both are measured. DATABASE_URL (an empty database with pgvector) is used when set; otherwise
 * services of the benchmark's own are started. Without the collections it says so and ends with 2.
 */
import { parseArgs } from 'node:util';
import { type Engine, makeBed } from '../bed.ts';
import { killAll, residentMb, startServer, stop } from '../processes.ts';
import { aligned, atLeast, type Figure, machine, percentile, round, tableOf } from '../table.ts';
import { type Api, openApi } from './api.ts';
import { plainBm25 } from './bm25.ts';
import { type Calibrated, calibratedScores } from './calibrated.ts';
import { FAKES, type Fake, startFakeModels } from './fake-models.ts';
import { byType, FACT_TYPES, findData, mean, ndcgAt10, readBeam, readScifact, recallAt } from './sets.ts';
import {
  type BeamResult,
  beamThroughHttp,
  type Ingested,
  type ScifactResult,
  scifactAsMemories,
  scifactThroughHttp,
} from './through-http.ts';

const { values } = parseArgs({
  options: {
    engine: { type: 'string' },
    data: { type: 'string' },
    only: { type: 'string', multiple: true },
    strict: { type: 'boolean', default: false },
    embeddings: { type: 'string' },
    model: { type: 'string', default: 'fake' },
    dimensions: { type: 'string', default: '384' },
    rerank: { type: 'string' },
    'rerank-model': { type: 'string', default: 'fake' },
  },
});
const engines: Engine[] = values.engine ? [values.engine as Engine] : ['postgres', 'embedded'];
if (engines.some((engine) => engine !== 'postgres' && engine !== 'embedded'))
  throw new Error('--engine must be postgres or embedded');
const data = findData(values.data);
if (data === undefined) {
  console.error(
    'The collections to measure on are not there: give their directory with --data or in MANUSHYA_BENCH_DATA. ' +
      'It holds scifact/ and beam/; see bench/retrieval/sets.ts.',
  );
  process.exit(2);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    killAll();
    process.exit(1);
  });
}

const chats = readBeam(data);
const { abstracts, topics } = readScifact(data);
const wanted = (section: string) => !values.only || values.only.includes(section);

/** How much less than text hybrid may find where a model takes part. */
const NOISE = values.embeddings || values.rerank ? 0.005 : 0;
const fakeOf = (given: string | undefined): Fake | undefined => FAKES.find((kind) => kind === given);

/** The settings of a server with the models that were asked for. */
async function modelSettings(): Promise<Record<string, string>> {
  const { embeddings, rerank, dimensions } = values;
  const kinds = { embeddings: fakeOf(embeddings), rerank: fakeOf(rerank) };
  const fake =
    kinds.embeddings || kinds.rerank
      ? await startFakeModels(
          { embeddings: kinds.embeddings ?? 'random', rerank: kinds.rerank ?? 'random' },
          Number(dimensions),
          { abstracts, topics, chats },
        )
      : undefined;
  const keys = ['EMBEDDING_API_KEY', 'RERANK_API_KEY'].flatMap((name) =>
    process.env[name] ? [[name, process.env[name]]] : [],
  );
  return {
    ...Object.fromEntries(keys),
    ...(embeddings && {
      EMBEDDING_BASE_URL: kinds.embeddings ? fake!.url : embeddings,
      EMBEDDING_MODEL: values.model,
      EMBEDDING_DIMENSIONS: dimensions,
    }),
    ...(rerank && {
      RERANK_BASE_URL: kinds.rerank ? fake!.url : rerank,
      RERANK_MODEL: values['rerank-model'],
    }),
  };
}

/** Recall by type, and nDCG@10, of plain BM25 over the same texts. */
function measureFloors() {
  const recall = (depth: number) =>
    byType(
      chats.flatMap(({ messages, questions }) => {
        const search = plainBm25(messages);
        return questions
          .filter(({ gold }) => gold.size > 0)
          .map(({ type, query, gold }) => ({ type, value: recallAt(depth, search(query), gold) }));
      }),
    );
  const search = plainBm25(abstracts.map(({ id, title, text }) => ({ id, text: `${title} ${text}` })));
  const ndcg = mean(topics.map(({ query, gold }) => ndcgAt10(search(query), gold)));
  return { recall: { 10: recall(10), 20: recall(20) }, ndcg };
}

type Floors = ReturnType<typeof measureFloors>;
const three = (value: number) => value.toFixed(3);

function speeds(what: string, { count, accepted_ms, ready_ms }: Ingested, latencies_ms: number[]): Figure[] {
  const rate = (ms: number) => round(count / (ms / 1_000));
  const [p50, p95] = [percentile(latencies_ms, 0.5), percentile(latencies_ms, 0.95)];
  return [
    {
      what: `${what}: stored`,
      measured: `${rate(accepted_ms)}/s accepted, ${rate(ready_ms)}/s ready`,
      note: `${count}`,
    },
    {
      what: `${what}: search`,
      measured: `p50 ${round(p50)} ms, p95 ${round(p95)} ms`,
      note: `${latencies_ms.length} searches`,
    },
  ];
}

function beamFigures({ recall, ingested, latencies_ms }: BeamResult, floors: Floors): Figure[] {
  const figure = (what: string, depth: 10 | 20, mode: 'text' | 'hybrid', type?: string) => {
    const of = (from: ReturnType<typeof byType>) => (type === undefined ? from.mean : from.types.get(type)!);
    const [own, floor] = [of(recall[depth][mode]), of(floors.recall[depth])];
    return { what, measured: three(own), floor: three(floor), ratio: own / floor };
  };
  const { hybrid, text } = recall[10];
  return [
    ...FACT_TYPES.map((type) => {
      const row = figure(`BEAM recall@10, ${type.replaceAll('_', ' ')}`, 10, 'hybrid', type);
      return { ...row, target: { text: '>= floor', met: row.ratio >= 1 } };
    }),
    { ...figure('BEAM recall@10, mean of the types', 10, 'hybrid'), target: atLeast(hybrid.mean, 0.76) },
    {
      ...figure('BEAM recall@10, mode text', 10, 'text'),
      target: { text: '<= hybrid', met: hybrid.mean >= text.mean - NOISE },
    },
    figure('BEAM recall@20, mean of the types', 20, 'hybrid'),
    ...speeds('BEAM', ingested, latencies_ms),
  ];
}

function scifactFigures(
  what: string,
  { ndcg, rows, ingested, latencies_ms }: ScifactResult,
  floors: Floors,
): Figure[] {
  const figure = (name: string, value: number): Figure => ({
    what: `${what} nDCG@10${name}`,
    measured: three(value),
    floor: three(floors.ndcg),
    ratio: value / floors.ndcg,
  });
  return [
    { ...figure(`, ${rows} rows`, ndcg.hybrid), target: atLeast(ndcg.hybrid, 0.715) },
    {
      ...figure(', mode text', ndcg.text),
      target: { text: '<= hybrid', met: ndcg.hybrid >= ndcg.text - NOISE },
    },
    ...speeds(what, ingested, latencies_ms),
  ];
}

function scoresTable(count: number, judged: Calibrated[]): string {
  const head = [
    `of ${count} short memories`,
    'score',
    'wanted',
    'at 0.6',
    'at 0.7',
    'next',
    'best result',
    '',
  ];
  const found = (score: number, threshold: number) => (score >= threshold ? 'found' : '-');
  return aligned([
    head,
    ...judged.map(({ query, score, least, most, second, text, met }) => [
      query,
      score.toFixed(2),
      `${least} to ${most}`,
      found(score, 0.6),
      found(score, 0.7),
      second.toFixed(2),
      text,
      met ? 'ok' : 'MISSED',
    ]),
  ]);
}

async function measure(
  api: Api,
  floors: Floors,
): Promise<{ figures: Figure[]; scores: [number, Calibrated[]][] }> {
  const figures: Figure[] = [];
  const scores: [number, Calibrated[]][] = [];
  if (wanted('scores'))
    for (const count of [10, 2, 1]) scores.push([count, await calibratedScores(api, count)]);
  if (wanted('beam')) figures.push(...beamFigures(await beamThroughHttp(api, chats), floors));
  if (wanted('scifact'))
    figures.push(...scifactFigures('SciFact', await scifactThroughHttp(api, abstracts, topics), floors));
  if (wanted('memories'))
    figures.push(
      ...scifactFigures('SciFact as memories', await scifactAsMemories(api, abstracts, topics), floors),
    );
  return { figures, scores };
}

const floors = measureFloors();
const models = await modelSettings();
let missed = 0;
for (const engine of engines) {
  const bed = await makeBed(engine);
  try {
    console.log(
      `\n# ${engine}\n\n${machine(bed.describe)}\nfloor: plain BM25 over the same texts, in memory\n`,
    );
    const from = performance.now();
    const server = await startServer({ ...bed.env, ...models });
    const api = openApi(server.url);
    const { figures, scores } = await measure(api, floors);
    await api.close();
    if (figures.length > 0) console.log(tableOf(figures));
    for (const [count, judged] of scores) console.log(`\n${scoresTable(count, judged)}`);
    const resident = residentMb(server.pid);
    await stop(server);
    missed += figures.filter(({ target }) => target && !target.met).length;
    missed += scores.flatMap(([, judged]) => judged).filter(({ met }) => !met).length;
    console.log(
      `\n${engine}: ${round((performance.now() - from) / 1_000)} s, server ${resident} MB resident`,
    );
  } finally {
    killAll();
    await bed.close();
  }
}
console.log(`\n${missed === 0 ? 'All targets are met.' : `${missed} targets are missed.`}`);
process.exit(values.strict && missed > 0 ? 1 : 0);
