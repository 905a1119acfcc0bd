import type { Account } from './client.ts';
import { count, type DocumentEntry } from './ledger.ts';
import type { Doing, Step } from './load.ts';
import { wording } from './load-memories.ts';

/** The corpus that each tenant of a trial has. */
export const trialCorpus = 'trial';

let made = 0;

/** What one client does with documents; those it stored are its own, so it knows what they must be. */
export function documentSteps(doing: Doing): Step[] {
  const { client, ledger, random, accounts, write } = doing;
  const mine: { entry: DocumentEntry; account: Account }[] = [];

  const take = () => mine.splice(random.between(0, mine.length - 1), 1)[0]!;
  const writing = (id: string) => {
    const sections = Array.from({ length: random.between(1, 4) }, (_, i) => {
      const paragraphs = Array.from({ length: random.between(1, 6) }, () =>
        wording(doing, random.between(5, 60)),
      );
      return `## Part ${i + 1} of ${wording(doing, 2)}\n\n${paragraphs.join('.\n\n')}.\n`;
    });
    return `# ${id}\n\n${sections.join('\n')}`;
  };
  const bodyOf = (id: string, text: string) => ({
    corpus_id: trialCorpus,
    document_id: id,
    text,
    content_type: 'text/markdown',
  });

  const store = async () => {
    const account = random.pick(accounts);
    made += 1;
    const id = `doc-${made}`;
    const text = writing(id);
    const entry: DocumentEntry = { id, tenant: account.tenant, acknowledged: 0, may: [text, undefined] };
    ledger.documents.push(entry);
    await write({
      account,
      method: 'POST',
      path: '/v1/documents/text',
      body: bodyOf(id, text),
      keyed: random.chance(0.5),
      status: 202,
      done: () => {
        entry.may = [text];
        entry.acknowledged += 1;
        mine.push({ entry, account });
      },
    });
  };

  const overwrite = async () => {
    if (mine.length === 0) return;
    const { entry, account } = take();
    const before = entry.may[0]!;
    const text = writing(entry.id);
    entry.may = [text, before];
    const settled = (now: string) => {
      entry.may = [now];
      mine.push({ entry, account });
    };
    await write({
      account,
      method: 'POST',
      path: '/v1/documents/text',
      body: { ...bodyOf(entry.id, text), overwrite: true },
      keyed: random.chance(0.5),
      status: 202,
      done: () => {
        entry.acknowledged += 1;
        settled(text);
      },
      // Still being worked on: nothing was changed.
      otherwise: (status) => {
        if (status === 200) settled(before);
        return status === 200;
      },
    });
  };

  const reindex = async () => {
    if (mine.length === 0) return;
    const { entry, account } = take();
    await write({
      account,
      method: 'POST',
      path: `/v1/documents/${entry.id}/reindex`,
      body: random.chance(0.5) ? { chunk_size_chars: random.pick([200, 500, 1_200]) } : {},
      keyed: random.chance(0.5),
      status: 202,
      done: () => {
        entry.acknowledged += 1;
        mine.push({ entry, account });
      },
      otherwise: (status) => {
        if (status === 409) mine.push({ entry, account });
        return status === 409;
      },
    });
  };

  const remove = async () => {
    if (mine.length === 0) return;
    const { entry, account } = take();
    const [before] = entry.may;
    entry.may = [undefined, before];
    await write({
      account,
      method: 'DELETE',
      path: `/v1/documents/${entry.id}`,
      keyed: random.chance(0.5),
      status: 204,
      done: () => {
        entry.may = [undefined];
      },
      otherwise: (status) => {
        if (status !== 409) return false;
        entry.may = [before];
        mine.push({ entry, account });
        return true;
      },
    });
  };

  const search = async () => {
    const account = random.pick(accounts);
    const body = { query: wording(doing, 3), top_k: 5 };
    const outcome = await client.send(account, 'POST', `/v1/corpora/${trialCorpus}/search`, body);
    if (outcome.is === 'answer' && outcome.status !== 200)
      ledger.problems.push(`search of the corpus answered ${outcome.status}`);
    count(ledger, 'searches');
  };

  return [
    { weight: 8, run: store },
    { weight: 3, run: overwrite },
    { weight: 3, run: reindex },
    { weight: 2, run: remove },
    { weight: 3, run: search },
  ];
}
