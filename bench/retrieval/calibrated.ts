/** The scores of short memories through HTTP: what a person who sets a threshold of 0.6 or 0.7 counts on. */
import { type Api, signUp, storeMemories, untilReady } from './api.ts';

export interface Judgement {
  query: string;
  /** Words of the memory that must come first; undefined when nothing answers. */
  expected: string | undefined;
  /** Lowest and highest score the best result may have. */
  least: number;
  most: number;
  /** Highest score of the second. */
  next: number;
}

const SHORT_MEMORIES = [
  'Client meeting notes: Discussed retirement planning',
  'The user prefers dark mode interfaces',
  'My name is John and I live in Berlin',
  'Planning a birthday party for Anna in June',
  'Anna wants to travel to Japan before she retires',
  'The quarterly report shows that revenue grew by twelve percent',
  'The dashboard API answers in 250 ms after caching',
  'Allergic to peanuts and shellfish',
  'Deployed version 2.4 to the staging cluster on Friday',
  'The user is learning to play the cello',
];

const JUDGEMENTS: Judgement[] = [
  { query: 'retirement planning', expected: 'Client meeting', least: 0.9, most: 1, next: 0.6 },
  { query: 'user interface preferences', expected: 'dark mode', least: 0.9, most: 1, next: 0.6 },
  { query: 'planing for retirment', expected: 'Client meeting', least: 0.7, most: 1, next: 0.7 },
  {
    query: 'what did we discuss about the retirement plan of the client in the meeting?',
    expected: 'Client meeting',
    least: 0.9,
    most: 1,
    next: 0.6,
  },
  { query: 'Where does the user live?', expected: 'Berlin', least: 0.4, most: 0.8, next: 0.6 },
  { query: 'quarterly revenue growth', expected: 'revenue grew', least: 0.4, most: 1, next: 0.4 },
  { query: 'dashboard performance', expected: 'dashboard API', least: 0.3, most: 0.7, next: 0.4 },
  { query: 'weather forecast tomorrow', expected: undefined, least: 0, most: 0.2, next: 0.2 },
];

export interface Calibrated extends Judgement {
  score: number;
  second: number;
  text: string;
  met: boolean;
}

/** The scores that short memories get, among ten and alone. */
export async function calibratedScores(api: Api, count: number): Promise<Calibrated[]> {
  const token = await signUp(api, `short-${count}`);
  const memories = SHORT_MEMORIES.slice(0, count);
  await storeMemories(
    api,
    token,
    memories.map((text) => ({ text, type: 'fact' })),
  );
  await untilReady(api, token);
  const known = JUDGEMENTS.filter(
    ({ expected }) => expected === undefined || memories.some((text) => text.includes(expected)),
  );
  const judged: Calibrated[] = [];
  for (const judgement of known) {
    const { query, expected, least, most, next } = judgement;
    const [first, second] = await api.request('POST', '/v1/memory/search', token, { query });
    const score = first?.score ?? 0;
    const right = expected === undefined || (first?.text ?? '').includes(expected);
    const met = right && score >= least && score <= most && (second?.score ?? 0) <= next;
    judged.push({ ...judgement, score, second: second?.score ?? 0, text: first?.text ?? '', met });
  }
  return judged;
}
