/** Searches one after another, in a process of its own: what measures has nothing else to do. Sends the times when told to stop. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'undici';
import { call } from '../bed.ts';
import { newRandom } from '../texts.ts';
import { newQuestion } from './topics.ts';

export interface SearchOrder {
  url: string;
  seed: number;
  /** `size` is how often a tenant is asked, `texts` are some that it holds, `filled` whether it holds any yet. */
  tenants: { token: string; size: number; texts: string[]; filled: boolean }[];
}

const times: number[] = [];
let stopped = false;
let loop: Promise<void> = Promise.resolve();

async function search({ url, seed, tenants }: SearchOrder): Promise<void> {
  const client = new Client(url);
  const random = newRandom(seed);
  const total = tenants.reduce((sum, { size }) => sum + size, 0);
  const drawn = () => {
    let at = random() * total;
    for (const tenant of tenants) {
      at -= tenant.size;
      if (at < 0) return tenant;
    }
    return tenants[0]!;
  };
  while (!stopped) {
    const { filled, token, texts } = drawn();
    if (!filled) {
      await sleep(1);
      continue;
    }
    const query = newQuestion(texts[Math.floor(random() * texts.length)]!, random);
    const from = performance.now();
    await call(client, 'POST', '/v1/memory/search', token, { query, mode: 'hybrid' });
    times.push(performance.now() - from);
  }
  await client.close();
}

let order: SearchOrder | undefined;
process.on('message', async (message: SearchOrder | { filled: number } | { stop: true }) => {
  try {
    if ('stop' in message) {
      stopped = true;
      await loop;
      process.send!({ value: times });
    } else if ('filled' in message) order!.tenants[message.filled]!.filled = true;
    else {
      order = message;
      loop = search(message);
      // Told when it is asked to stop, which waits for it; not before, as a failure nobody looks at.
      loop.catch(() => {});
    }
  } catch (error) {
    process.send!({ error: (error as Error).message });
  }
});
process.on('disconnect', () => process.exit(0));
