/** Connections to a running server, and what every collection needs of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'undici';
import { call } from '../bed.ts';

const WAIT_MS = 600_000;
const WRITERS = 8;

/** Connections to one server. */
export interface Api {
  request: (method: 'GET' | 'POST', path: string, token: string, body?: unknown) => Promise<any>;
  /** Runs `work` for each item over as many connections as there are. */
  each: <T>(items: readonly T[], work: (item: T, request: Api['request']) => Promise<void>) => Promise<void>;
  close: () => Promise<void>;
}

export function openApi(url: string): Api {
  const clients = Array.from({ length: WRITERS }, () => new Client(url));
  const requestOver =
    (client: Client): Api['request'] =>
    (method, path, token, body) =>
      call(client, method, path, token, body);
  return {
    request: requestOver(clients[0]!),
    each: async (items, work) => {
      let next = 0;
      const take = async (client: Client) => {
        while (next < items.length) await work(items[next++]!, requestOver(client));
      };
      await Promise.all(clients.map(take));
    },
    close: async () => void (await Promise.all(clients.map((client) => client.close()))),
  };
}

export async function signUp({ request }: Api, name: string): Promise<string> {
  const { access_token } = await request('POST', '/v1/identity/', '', { external_id: name, role: 'admin' });
  return access_token;
}

/** Ids in the order of `memories`. */
export async function storeMemories(
  { request }: Api,
  token: string,
  memories: readonly object[],
): Promise<string[]> {
  const ids: string[] = [];
  const size = 500;
  for (let at = 0; at < memories.length; at += size) {
    const part = memories.slice(at, at + size);
    const { created, failed } = await request('POST', '/v1/memory/bulk', token, { memories: part });
    if (failed.length > 0) throw new Error(`a memory was refused: ${JSON.stringify(failed[0])}`);
    ids.push(...created.map(({ id }: { id: string }) => id));
  }
  return ids;
}

/** Asks again until `done` answers true. */
export async function until(what: string, done: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + WAIT_MS;
  while (!(await done())) {
    if (Date.now() > end) throw new Error(`gave up waiting until ${what}`);
    await sleep(100);
  }
}

/** Waits until every memory of a tenant is counted and embedded. */
export async function untilReady({ request }: Api, token: string): Promise<void> {
  let skip = 0;
  const limit = 100;
  await until('all memories are ready', async () => {
    for (;;) {
      const page = await request('GET', `/v1/memory/?limit=${limit}&skip=${skip}`, token);
      const memories: { embedding_status: string }[] = dataOf(page);
      if (memories.some(({ embedding_status }) => embedding_status !== 'ready')) return false;
      if (memories.length < limit) return true;
      skip += limit;
    }
  });
}

/** What an answer holds, with its envelope or without. */
export const dataOf = (answer: any): any => answer.data ?? answer;
