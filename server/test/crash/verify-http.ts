import type { Account, Client } from './client.ts';
import type { Ledger, MemoryEntry } from './ledger.ts';

/** Reads everything of each tenant over HTTP, page by page and by id, and repeats keyed writes that have their answer. */
export async function verifyOverHttp(client: Client, accounts: Account[], ledger: Ledger): Promise<void> {
  for (const account of accounts) {
    const seen = await listAll(client, account, ledger);
    const own = ledger.memories.filter(({ tenant, id }) => tenant === account.tenant && id !== undefined);
    for (const entry of own) compare(entry, seen.get(entry.id!), ledger);
    for (const entry of own.filter((_, i) => i % 20 === 0)) {
      const reply = await client.send(account, 'GET', `/v1/memory/${entry.id}`);
      const status = reply.is === 'answer' ? reply.status : reply.is;
      if (status !== (seen.has(entry.id!) ? 200 : 404))
        ledger.problems.push(`memory ${entry.id} answers ${status} and is listed: ${seen.has(entry.id!)}`);
    }
    const answered = ledger.keys.filter(({ tenant, answer }) => tenant === account.tenant && answer);
    for (const entry of answered.filter((_, i) => i % 10 === 0)) {
      const again = await client.sendKeyed(account, entry);
      if (again.is !== 'answer' || !(again.replayed || isForgotten(again, entry.answer!.body, own)))
        ledger.problems.push(`key ${entry.key} is not replayed: ${JSON.stringify(again)}`);
    }
  }
}

/** The answer showed a memory that was removed for good since. */
const isForgotten = (
  { status, body }: { status: number; body: any },
  answered: any,
  own: MemoryEntry[],
): boolean =>
  status === 409 &&
  body.error?.code === 'IDEMPOTENCY_ANSWER_ERASED' &&
  own.some(({ id, may }) => id === answered?.id && may.some((state) => state.is === 'hard'));

async function listAll(client: Client, account: Account, ledger: Ledger): Promise<Map<string, any>> {
  const seen = new Map<string, any>();
  for (let cursor = ''; ; ) {
    const reply = await client.send(account, 'GET', `/v1/memory/?limit=1000${cursor}`);
    if (reply.is !== 'answer' || reply.status !== 200) {
      ledger.problems.push(`listing answered ${JSON.stringify(reply)}`);
      return seen;
    }
    for (const memory of reply.body) {
      if (seen.has(memory.id)) ledger.problems.push(`memory ${memory.id} is listed twice`);
      if (memory.embedding_status !== 'ready') ledger.problems.push(`memory ${memory.id} is not ready`);
      seen.set(memory.id, memory);
    }
    if (!reply.cursor) return seen;
    cursor = `&cursor=${encodeURIComponent(reply.cursor)}`;
  }
}

function compare({ id, may }: MemoryEntry, seen: any, ledger: Ledger): void {
  const fits = may.some((state) =>
    state.is === 'live' ? seen?.text === state.text && seen.version === state.version : seen === undefined,
  );
  if (!fits) ledger.problems.push(`memory ${id} is listed as ${JSON.stringify(seen)?.slice(0, 300)}`);
}
