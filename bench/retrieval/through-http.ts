/** The two collections through the HTTP API of a running server: stored, waited for, asked, and judged. */
import { type Api, dataOf, signUp, storeMemories, until, untilReady } from './api.ts';
import { type Abstract, byType, type Chat, mean, ndcgAt10, recallAt, type Topic } from './sets.ts';

export const MODES = ['text', 'hybrid'] as const;
export type Mode = (typeof MODES)[number];
type PerMode<T> = Record<Mode, T>;

/** What a server does by default with a longer memory is to refuse it. */
const MEMORY_CHARACTERS = 10_000;

export interface Ingested {
  count: number;
  accepted_ms: number;
  ready_ms: number;
}

/** One ranking a mode; how long each search took goes to `latencies`. */
async function ask(
  latencies: number[],
  search: (mode: Mode) => Promise<string[]>,
): Promise<PerMode<string[]>> {
  const orders: PerMode<string[]> = { text: [], hybrid: [] };
  for (const mode of MODES) {
    const from = performance.now();
    orders[mode] = await search(mode);
    latencies.push(performance.now() - from);
  }
  return orders;
}

export interface BeamResult {
  ingested: Ingested;
  recall: Record<10 | 20, PerMode<ReturnType<typeof byType>>>;
  latencies_ms: number[];
}

/** One tenant a chat; recall of the messages that hold the answer, by question type. */
export async function beamThroughHttp(api: Api, chats: readonly Chat[]): Promise<BeamResult> {
  const latencies_ms: number[] = [];
  const answers = { 10: { text: [], hybrid: [] }, 20: { text: [], hybrid: [] } } as Record<
    10 | 20,
    PerMode<{ type: string; value: number }[]>
  >;
  const ingested = { count: 0, accepted_ms: 0, ready_ms: 0 };
  for (const { name, messages, questions } of chats) {
    const token = await signUp(api, `chat-${name}`);
    const from = performance.now();
    const ids = await storeMemories(api, token, memoriesOf(messages));
    ingested.accepted_ms += performance.now() - from;
    await untilReady(api, token);
    ingested.ready_ms += performance.now() - from;
    ingested.count += ids.length;
    const sourceOf = new Map(ids.map((id, i) => [id, messages[i]!.id]));
    for (const { type, query, gold } of questions) {
      if (gold.size === 0) continue;
      const orders = await ask(latencies_ms, async (mode) => {
        const found = await api.request('POST', '/v1/memory/search', token, { query, limit: 20, mode });
        return found.map(({ id }: { id: string }) => sourceOf.get(id)!);
      });
      for (const depth of [10, 20] as const) {
        for (const mode of MODES)
          answers[depth][mode].push({ type, value: recallAt(depth, orders[mode], gold) });
      }
    }
  }
  const judged = (depth: 10 | 20) => ({
    text: byType(answers[depth].text),
    hybrid: byType(answers[depth].hybrid),
  });
  return { ingested, latencies_ms, recall: { 10: judged(10), 20: judged(20) } };
}

const TURN_MS = 30_000;

/** Messages as memories: a turn every half minute from the day the conversation took place. */
function memoriesOf(messages: Chat['messages']): object[] {
  let at = 0;
  return messages.map(({ session, role, text, time_anchor }) => {
    const day =
      time_anchor === undefined ? Number.NaN : Date.parse(`${time_anchor.replaceAll('-', ' ')} UTC`);
    at = Math.max(at + TURN_MS, Number.isNaN(day) ? 0 : day);
    return {
      text: text.slice(0, MEMORY_CHARACTERS),
      type: 'message',
      session_id: session,
      role,
      occurred_at: new Date(at).toISOString(),
    };
  });
}

export interface ScifactResult {
  ingested: Ingested;
  rows: number;
  ndcg: PerMode<number>;
  latencies_ms: number[];
}

/** One corpus, a Markdown document an abstract; a document stands where its best chunk does. */
export async function scifactThroughHttp(
  api: Api,
  abstracts: readonly Abstract[],
  topics: readonly Topic[],
): Promise<ScifactResult> {
  const token = await signUp(api, 'scifact');
  const { id: corpus_id } = dataOf(await api.request('POST', '/v1/corpora', token, { name: 'SciFact' }));
  const from = performance.now();
  await api.each(abstracts, async ({ id, title, text }, request) => {
    const document = { corpus_id, document_id: id, filename: `${id}.md`, text: `# ${title}\n\n${text}` };
    await request('POST', '/v1/documents/text', token, document);
  });
  const accepted_ms = performance.now() - from;
  for (const status of ['queued', 'processing']) {
    await until(`no document is ${status}`, async () => {
      const query = `corpus_id=${corpus_id}&status=${status}&limit=1`;
      return dataOf(await api.request('GET', `/v1/documents?${query}`, token)).length === 0;
    });
  }
  const ready_ms = performance.now() - from;
  const failed = dataOf(
    await api.request('GET', `/v1/documents?corpus_id=${corpus_id}&status=failed`, token),
  );
  if (failed.length > 0) throw new Error(`a document failed: ${JSON.stringify(failed[0])}`);
  const result = await judge(topics, async (query, mode) => {
    const found = dataOf(
      await api.request('POST', `/v1/corpora/${corpus_id}/search`, token, { query, top_k: 50, mode }),
    );
    return [...new Set<string>(found.map(({ document_id }: { document_id: string }) => document_id))];
  });
  const ingested = { count: abstracts.length, accepted_ms, ready_ms };
  return { ...result, ingested, rows: await countChunks(api, token, corpus_id) };
}

/** The same abstracts as memories of one tenant, whole. */
export async function scifactAsMemories(
  api: Api,
  abstracts: readonly Abstract[],
  topics: readonly Topic[],
): Promise<ScifactResult> {
  const token = await signUp(api, 'scifact-memories');
  const from = performance.now();
  const memories = abstracts.map(({ title, text }) => ({
    text: `${title} ${text}`.slice(0, MEMORY_CHARACTERS),
    type: 'abstract',
  }));
  const ids = await storeMemories(api, token, memories);
  const accepted_ms = performance.now() - from;
  await untilReady(api, token);
  const ready_ms = performance.now() - from;
  const sourceOf = new Map(ids.map((id, i) => [id, abstracts[i]!.id]));
  const result = await judge(topics, async (query, mode) => {
    const found = await api.request('POST', '/v1/memory/search', token, { query, limit: 100, mode });
    return found.map(({ id }: { id: string }) => sourceOf.get(id)!);
  });
  return { ...result, ingested: { count: ids.length, accepted_ms, ready_ms }, rows: ids.length };
}

async function judge(topics: readonly Topic[], search: (query: string, mode: Mode) => Promise<string[]>) {
  const latencies_ms: number[] = [];
  const values: PerMode<number[]> = { text: [], hybrid: [] };
  for (const { query, gold } of topics) {
    const orders = await ask(latencies_ms, (mode) => search(query, mode));
    for (const mode of MODES) values[mode].push(ndcgAt10(orders[mode], gold));
  }
  return { latencies_ms, ndcg: { text: mean(values.text), hybrid: mean(values.hybrid) } };
}

async function countChunks(api: Api, token: string, corpusId: string): Promise<number> {
  let chunks = 0;
  const limit = 100;
  for (let skip = 0; ; skip += limit) {
    const page = dataOf(
      await api.request('GET', `/v1/documents?corpus_id=${corpusId}&limit=${limit}&skip=${skip}`, token),
    );
    for (const { num_chunks } of page) chunks += num_chunks as number;
    if (page.length < limit) return chunks;
  }
}
