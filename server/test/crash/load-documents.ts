import { createHash } from 'node:crypto';
import { docx, pdf } from '../files.ts';
import { form } from '../uploads.ts';
import type { Account } from './client.ts';
import { type CorpusEntry, count, type DocumentEntry } from './ledger.ts';
import type { Doing, Step } from './load.ts';
import { wording } from './load-memories.ts';

/** The corpus that each tenant of a trial has. */
export const trialCorpus = 'trial';

let made = 0;

/** The standard fonts have Latin letters alone. */
const printable = (line: string): string => line.replace(/[^\x20-\x7e\xa0-\xff]/g, '?').slice(0, 90);

const hashOf = (bytes: string | Buffer): string => createHash('sha256').update(bytes).digest('hex');

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
  /** A document of some format: where and how it is sent, and the hash of its bytes. */
  const written = async (id: string, overwrite: boolean) => {
    const text = writing(id);
    const kind = random.next();
    if (kind < 0.5) {
      const content_type = kind < 0.35 ? 'text/markdown' : 'text/html';
      const sent = kind < 0.35 ? text : `<h1>${id}</h1><p>${text.replaceAll('\n\n', '</p><p>')}</p>`;
      const body = { corpus_id: trialCorpus, document_id: id, text: sent, content_type, overwrite };
      return { path: '/v1/documents/text', body, hash: hashOf(sent) };
    }
    const lines = text.split('\n').filter(Boolean);
    const bytes =
      kind < 0.8
        ? docx(
            lines.map((line) => (line.startsWith('#') ? { text: line, style: 'heading 1' } : { text: line })),
          )
        : await pdf([lines.slice(0, 50).map((line, i) => ({ text: printable(line), top: 40 + i * 15 }))]);
    const fields = { corpus_id: trialCorpus, document_id: id, overwrite: String(overwrite) };
    const parts = Object.entries(fields).map(([name, value]) => ({ name, value }));
    const upload = { name: 'file', value: bytes, filename: `${id}.bin`, type: 'application/octet-stream' };
    return { path: '/v1/documents', body: form([...parts, upload]), hash: hashOf(bytes) };
  };

  const store = async () => {
    const account = random.pick(accounts);
    made += 1;
    const id = `doc-${made}`;
    const { path, body, hash } = await written(id, false);
    const entry: DocumentEntry = { id, tenant: account.tenant, acknowledged: 0, may: [hash, undefined] };
    ledger.documents.push(entry);
    await write({
      account,
      method: 'POST',
      path,
      body,
      keyed: random.chance(0.5),
      status: 202,
      done: () => {
        entry.may = [hash];
        entry.acknowledged += 1;
        mine.push({ entry, account });
      },
    });
  };

  const overwrite = async () => {
    if (mine.length === 0) return;
    const { entry, account } = take();
    const before = entry.may[0]!;
    const { path, body, hash } = await written(entry.id, true);
    entry.may = [hash, before];
    const settled = (now: string) => {
      entry.may = [now];
      mine.push({ entry, account });
    };
    await write({
      account,
      method: 'POST',
      path,
      body,
      keyed: random.chance(0.5),
      status: 202,
      done: () => {
        entry.acknowledged += 1;
        settled(hash);
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

  const corpora: { entry: CorpusEntry; account: Account }[] = [];
  let corpusNumber = 0;

  const makeCorpus = async () => {
    const account = random.pick(accounts);
    const id = `passing-${++made}-${++corpusNumber}`;
    const reply = await client.send(account, 'POST', '/v1/corpora', { id, name: id });
    if (reply.is !== 'answer' || reply.status !== 201) return;
    const entry: CorpusEntry = { id, tenant: account.tenant, may: ['there'] };
    ledger.corpora.push(entry);
    for (let i = random.between(1, 5); i > 0; i--) {
      made += 1;
      const text = writing(id);
      const body = { corpus_id: id, document_id: `in-${made}`, text, content_type: 'text/markdown' };
      await client.send(account, 'POST', '/v1/documents/text', body);
    }
    corpora.push({ entry, account });
  };

  const dropCorpus = async () => {
    const last = corpora.shift();
    if (!last) return makeCorpus();
    const { entry, account } = last;
    entry.may = ['there', 'gone'];
    await write({
      account,
      method: 'DELETE',
      path: `/v1/corpora/${entry.id}`,
      keyed: random.chance(0.5),
      status: 204,
      done: () => {
        entry.may = ['gone'];
        count(ledger, 'corpora_deleted');
      },
      otherwise: (status) => {
        if (status !== 409) return false;
        entry.may = ['there'];
        corpora.push(last);
        return true;
      },
    });
  };

  return [
    { weight: 8, run: store },
    { weight: 1, run: makeCorpus },
    { weight: 2, run: dropCorpus },
    { weight: 3, run: overwrite },
    { weight: 3, run: reindex },
    { weight: 2, run: remove },
    { weight: 3, run: search },
  ];
}
