import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { type Caller, newMember, useTestServer } from '#test/harness.ts';
import { done, newLibrary, put, search } from '#test/uploads.ts';

useTestServer();

const v = (name: string) => ({ var: name });
const all = Array.from({ length: 12 }, (_, i) => `doc-${String(i).padStart(2, '0')}`);

describe('documents where policies look at them', () => {
  let mine: Caller;
  let other: Caller;
  let editor: Caller;
  let roles = 0;

  before(async () => {
    [mine, other] = [await newLibrary(), await newLibrary()];
    editor = await newMember(mine, 'editor');
    for (const owner of [mine, other])
      for (const [i, id] of all.entries()) {
        const labels = { level: i % 3, ...(i % 2 ? { team: 'red' } : {}) };
        const reply = await put(owner === mine && i > 8 ? editor : owner, {
          document_id: id,
          text: `the harbour of ${id} opens at six`,
          metadata_json: i === 5 ? { labels: {}, year: '1850' } : { labels, year: 1850 + i },
          // Nothing of it is granted to others.
          ...(i === 1 ? { access: 'restricted' } : {}),
        });
        assert.equal(reply.status, 202, reply.text);
      }
    for (const owner of [mine, other]) for (const id of all) await done(owner, id);
  });

  const cases: [what: string, policies: object[], sees: (i: number) => boolean][] = [
    [
      'some ids',
      [{ rule: { in: [v('target.id'), ['doc-01', 'doc-02', 'doc-09']] } }],
      (i) => [2, 9].includes(i),
    ],
    [
      'all but a label',
      [{ rule: true }, { effect: 'deny', priority: 2, rule: { '==': [v('target.labels.team'), 'red'] } }],
      (i) => i % 2 === 0 || i === 5,
    ],
    ['a number, written as text once', [{ rule: { '<': [v('target.metadata.year'), 1855] } }], (i) => i < 6],
    [
      'what is computed',
      [{ rule: { in: [{ substr: [v('target.id'), -1] }, ['1', '4', '7']] } }],
      (i) => [4, 7, 11].includes(i),
    ],
    ['nothing', [{ rule: { '==': [{ cat: [v('target.type')] }, 'none'] } }], () => false],
  ];
  for (const [what, policies, sees] of cases)
    it(`are listed and found as when each is decided: ${what}`, async () => {
      const role = `reads-${++roles}`;
      for (const owner of [mine, other]) {
        for (const policy of policies as { rule: unknown }[]) {
          const rule = { and: [{ '==': [v('resource'), 'documents'] }, policy.rule] };
          assert.equal((await owner.call('POST', '/v1/policy/', { ...policy, role, rule })).status, 201);
        }
        const corpora = { role, rule: { '==': [v('resource'), 'corpora'] } };
        assert.equal((await owner.call('POST', '/v1/policy/', corpora)).status, 201);
      }
      const expected = all.filter((_, i) => i !== 1 && sees(i));
      for (const owner of [mine, other]) {
        const who = await newMember(owner, role);
        const listed: string[] = [];
        for (let cursor = ''; ; ) {
          const page = await who.call('GET', `/v1/documents?corpus_id=c1&limit=2${cursor}`);
          assert.equal(page.status, 200, page.text);
          listed.push(...page.body.data.map(({ id }: { id: string }) => id));
          const next = page.headers['x-next-cursor'];
          if (!next) break;
          cursor = `&cursor=${encodeURIComponent(String(next))}`;
        }
        assert.deepEqual(listed, expected.toReversed());
        for (const mode of ['hybrid', 'text', 'vector']) {
          const found = await search(who, 'when does the harbour open?', { mode, top_k: 20 });
          assert.equal(found.status, 200, found.text);
          const ids = found.body.data.map(({ document_id }: { document_id: string }) => document_id);
          assert.deepEqual(ids.sort(), expected, mode);
        }
      }
    });

  it('do not become by an upload what a policy keeps from being made', async () => {
    const rule = {
      and: [
        { '==': [v('resource'), 'documents'] },
        { '==': [v('action'), 'create'] },
        { '==': [v('target.labels.team'), 'blue'] },
      ],
    };
    const policy = { role: 'editor', effect: 'deny', rule };
    assert.equal((await mine.call('POST', '/v1/policy/', policy)).status, 201);
    const blue = { metadata_json: { labels: { team: 'blue' } }, text: 'the harbour is blue' };
    assert.equal((await put(editor, { ...blue, document_id: 'new' })).status, 403);
    assert.equal((await put(editor, { ...blue, document_id: 'doc-11', overwrite: true })).status, 403);
    const { body } = await editor.call('GET', '/v1/documents/doc-11');
    assert.notEqual(body.data.metadata_json.labels.team, 'blue');
    const elsewhere = await put(other, { ...blue, document_id: 'doc-11', overwrite: true });
    assert.equal(elsewhere.status, 202, elsewhere.text);
    await done(other, 'doc-11');
  });

  it('are told apart by who stored them', async () => {
    const rule = { and: [{ '==': [v('resource'), 'documents'] }, { '==': [v('target.owner'), editor.id] }] };
    assert.equal((await mine.call('POST', '/v1/policy/', { role: 'proof', rule })).status, 201);
    const who = await newMember(mine, 'proof');
    const { body } = await who.call('GET', '/v1/documents');
    assert.deepEqual(
      body.data.map(({ id }: { id: string }) => id),
      ['doc-11', 'doc-10', 'doc-09'],
    );
  });
});
