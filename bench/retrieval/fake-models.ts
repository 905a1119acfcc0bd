/**
 * Embeddings and a reranker of which it is known what they know: nothing, or what the collections say belongs together.
 * They show what ranking makes of such answers, not how good a model is.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Abstract, Chat, Topic } from './sets.ts';

export const FAKES = ['random', 'constant', 'near-constant', 'oracle'] as const;
export type Fake = (typeof FAKES)[number];

/** What of a text's vector is its own, beside what it is about. */
const OWN = 0.6;
/** The same of a query. */
const OWN_OF_QUERY = 1.2;
/** Share of queries the oracle does not understand. */
const LOST = 0.3;
const NEAR = 0.02;
/** Characters that tell one text from all others of a collection. */
const START = 40;

/** Normally distributed, and the same for the same text. */
function noiseOf(text: string, dimensions: number): number[] {
  let state = 2166136261;
  for (let i = 0; i < text.length; i++) state = Math.imul(state ^ text.charCodeAt(i), 16777619);
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return Array.from(
    { length: dimensions },
    () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(6.2831853 * next()),
  );
}

const startOf = (text: string) => text.replace(/^# /, '').replace(/\s+/g, ' ').slice(0, START);
const sum = (a: number[], b: number[], share: number) => a.map((value, i) => value + share * b[i]!);

/** Starts `POST /v1/embeddings` and `POST /v1/rerank`; answers their address. */
export async function startFakeModels(
  kinds: { embeddings: Fake; rerank: Fake },
  dimensions: number,
  { abstracts, topics, chats }: { abstracts: Abstract[]; topics: Topic[]; chats: Chat[] },
): Promise<{ url: string; close: () => void }> {
  const answers = new Map<string, Set<string>>();
  const note = (query: string, starts: string[]) => answers.set(query, new Set(starts));
  const known = new Map(abstracts.map(({ id, title, text }) => [id, startOf(`${title} ${text}`)]));
  for (const { query, gold } of topics)
    note(
      query,
      Array.from(gold, (id) => known.get(id)!),
    );
  for (const { messages, questions } of chats) {
    const texts = new Map(messages.map(({ id, text }) => [id, startOf(text)]));
    for (const { query, gold } of questions)
      note(
        query,
        Array.from(gold, (id) => texts.get(id) ?? ''),
      );
  }
  const isLost = (query: string) => Math.abs(noiseOf(query, 1)[0]!) < LOST * 1.28;

  const oracle = (text: string): number[] => {
    const own = noiseOf(text, dimensions);
    const gold = answers.get(text);
    if (gold === undefined) return sum(noiseOf(startOf(text), dimensions), own, OWN);
    if (isLost(text)) return own;
    const about = new Array<number>(dimensions).fill(0);
    const mean = Array.from(gold).reduce(
      (all, start) => sum(all, noiseOf(start, dimensions), 1 / Math.sqrt(gold.size)),
      about,
    );
    return sum(mean, own, OWN_OF_QUERY);
  };
  const constant = noiseOf('constant', dimensions);
  const embed: Record<Fake, (text: string) => number[]> = {
    random: (text) => noiseOf(text, dimensions),
    constant: () => constant,
    'near-constant': (text) => sum(constant, noiseOf(text, dimensions), NEAR),
    oracle,
  };
  const relevance: Record<Fake, (query: string, text: string) => number> = {
    random: (query, text) => Math.min(1, Math.abs(noiseOf(query + text, 1)[0]!) / 3),
    constant: () => 0.5,
    'near-constant': (query, text) => 0.5 + noiseOf(query + text, 1)[0]! / 1_000,
    oracle: (query, text) => (answers.get(query)?.has(startOf(text)) && !isLost(query) ? 0.9 : 0.1),
  };

  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const body = JSON.parse(Buffer.concat(parts).toString());
    response.setHeader('content-type', 'application/json');
    if (request.url === '/v1/embeddings') {
      const data = body.input.map((text: string, index: number) => ({
        index,
        embedding: embed[kinds.embeddings](text).map((value) => Math.fround(value)),
      }));
      return response.end(JSON.stringify({ data }));
    }
    const results = body.documents.map((text: string, index: number) => ({
      index,
      relevance_score: relevance[kinds.rerank](body.query, text),
    }));
    response.end(JSON.stringify({ results }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/v1`, close: () => server.closeAllConnections() };
}
