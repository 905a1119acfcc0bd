import type { Account } from './client.ts';
import { count, type MemoryEntry, type MemoryState } from './ledger.ts';
import type { Doing, Step } from './load.ts';

type Live = Extract<MemoryState, { is: 'live' }>;

let marks = 0;
const syllables = ['ka', 'ro', 'min', 'tel', 'sur', 'vo', 'lin', 'dar', 'pe', 'xi', 'über', '東', 'naï', '7'];
const types = ['preference', 'event', 'note'];

/** Words from a small vocabulary, so that texts share terms, and some are unique. */
export function wording({ random }: Doing, words: number): string {
  const word = () => random.pick(syllables) + random.pick(syllables) + (random.chance(0.3) ? 's' : '');
  return Array.from({ length: words }, word).join(' ');
}

const stateOf = (entry: MemoryEntry): Live => entry.may[0] as Live;

/** What one client does with memories; the memories it made are its own, so it knows what they must be. */
export function memorySteps(doing: Doing): Step[] {
  const { client, ledger, random, accounts, write } = doing;
  const mine: { entry: MemoryEntry; account: Account }[] = [];

  const take = () => mine.splice(random.between(0, mine.length - 1), 1)[0]!;
  const expected = (entry: MemoryEntry, body: any) => {
    const state = stateOf(entry);
    if (body.text !== state.text || body.version !== state.version || body.metadata.mark !== entry.mark)
      ledger.problems.push(`memory ${entry.id} was read as ${JSON.stringify(body)}`);
  };

  const draft = (account: Account): { entry: MemoryEntry; body: object } => {
    marks += 1;
    const mark = `mark-${marks}`;
    const text = `${mark} ${wording(doing, random.between(1, 40))}`;
    const type = random.pick(types);
    const live: Live = { is: 'live', text, type, version: 1 };
    const entry: MemoryEntry = { mark, tenant: account.tenant, id: undefined, may: [live, { is: 'absent' }] };
    ledger.memories.push(entry);
    return { entry, body: { text, type, metadata: { mark } } };
  };

  const create = async () => {
    const account = random.pick(accounts);
    const { entry, body } = draft(account);
    await write({
      account,
      method: 'POST',
      path: '/v1/memory/',
      body,
      keyed: random.chance(0.5),
      status: 201,
      done: ({ id }) => {
        Object.assign(entry, { id, may: [stateOf(entry)] });
        mine.push({ entry, account });
      },
    });
  };

  const bulk = async () => {
    const account = random.pick(accounts);
    const drafts = Array.from({ length: random.between(1, 80) }, () => draft(account));
    const entries = drafts.map(({ entry }) => entry);
    ledger.together.add(entries);
    await write({
      account,
      method: 'POST',
      path: '/v1/memory/bulk',
      body: { memories: drafts.map(({ body }) => body) },
      keyed: random.chance(0.5),
      status: 201,
      done: ({ created, failed }) => {
        ledger.together.delete(entries);
        if (created.length !== drafts.length || failed.length > 0)
          ledger.problems.push(`bulk stored ${created.length} of ${drafts.length}`);
        for (const { index, id } of created) {
          const { entry } = drafts[index]!;
          Object.assign(entry, { id, may: [stateOf(entry)] });
          mine.push({ entry, account });
        }
      },
    });
  };

  const change = async () => {
    if (mine.length === 0) return;
    const { entry, account } = take();
    const before = stateOf(entry);
    const after: Live = { ...before, version: before.version + 1 };
    const retype = random.chance(0.2);
    if (retype) after.type = random.pick(types);
    else after.text = `${entry.mark} ${wording(doing, random.between(1, 40))}`;
    entry.may = [after, before];
    await write({
      account,
      method: 'PUT',
      path: `/v1/memory/${entry.id}`,
      body: retype ? { type: after.type } : { text: after.text },
      keyed: random.chance(0.5),
      status: 200,
      done: (body) => {
        entry.may = [after];
        expected(entry, body);
        mine.push({ entry, account });
      },
    });
  };

  const remove = async () => {
    if (mine.length === 0) return;
    const { entry, account } = take();
    const hard = random.chance(0.5);
    const after: MemoryState = { is: hard ? 'hard' : 'soft' };
    entry.may = [after, stateOf(entry)];
    await write({
      account,
      method: 'DELETE',
      path: `/v1/memory/${entry.id}${hard ? '?hard_delete=true' : ''}`,
      keyed: random.chance(0.5),
      status: 204,
      done: () => {
        entry.may = [after];
      },
    });
  };

  const removeMany = async () => {
    const account = random.pick(accounts);
    const chosen = mine.filter((own) => own.account === account).slice(0, random.between(2, 30));
    if (chosen.length === 0) return;
    const hard = random.chance(0.5);
    const after: MemoryState = { is: hard ? 'hard' : 'soft' };
    const entries = chosen.map(({ entry }) => entry);
    for (const own of chosen) {
      mine.splice(mine.indexOf(own), 1);
      own.entry.may = [after, stateOf(own.entry)];
    }
    ledger.together.add(entries);
    await write({
      account,
      method: 'POST',
      path: '/v1/memory/bulk-delete',
      body: { memory_ids: entries.map(({ id }) => id), hard_delete: hard },
      keyed: random.chance(0.5),
      status: 200,
      done: ({ deleted_count }) => {
        ledger.together.delete(entries);
        if (deleted_count !== entries.length)
          ledger.problems.push(`bulk-delete took ${deleted_count} of ${entries.length}`);
        for (const entry of entries) entry.may = [after];
      },
    });
  };

  const read = async () => {
    if (mine.length === 0) return;
    const { entry, account } = random.pick(mine);
    const before = stateOf(entry);
    const outcome = await client.send(account, 'GET', `/v1/memory/${entry.id}`);
    if (outcome.is !== 'answer' || entry.may.length > 1 || stateOf(entry) !== before) return;
    if (outcome.status === 200) expected(entry, outcome.body);
    else ledger.problems.push(`memory ${entry.id} was acknowledged and answered ${outcome.status}`);
    count(ledger, 'reads');
  };

  const search = async () => {
    const account = random.pick(accounts);
    const body = { query: wording(doing, 3), limit: 5, ...(random.chance(0.3) ? { mode: 'vector' } : {}) };
    const outcome = await client.send(account, 'POST', '/v1/memory/search', body);
    if (outcome.is !== 'answer') return;
    if (outcome.status !== 200) ledger.problems.push(`search answered ${outcome.status}`);
    else if (outcome.body.some((row: any) => row.tenant_id !== account.tenant))
      ledger.problems.push('search showed what another tenant has');
    count(ledger, 'searches');
  };

  const enrol = async () => {
    const account = random.pick(accounts);
    marks += 1;
    const entry = { external_id: `member-${marks}`, tenant: account.tenant, acknowledged: false };
    ledger.identities.push(entry);
    await write({
      account,
      method: 'POST',
      path: '/v1/identity/',
      body: { external_id: entry.external_id, role: 'agent' },
      keyed: random.chance(0.5),
      status: 200,
      done: () => {
        entry.acknowledged = true;
      },
    });
  };

  return [
    { weight: 40, run: create },
    { weight: 6, run: bulk },
    { weight: 15, run: change },
    { weight: 10, run: remove },
    { weight: 2, run: removeMany },
    { weight: 12, run: read },
    { weight: 5, run: search },
    { weight: 3, run: enrol },
  ];
}
