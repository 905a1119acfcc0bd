import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { provedElsewhere } from './elsewhere.ts';

const server = fileURLToPath(new URL('../..', import.meta.url));
const here = `${server}/test/security`;

/** Statements as they are written in the files, so that reading them runs no test. */
const written = readdirSync(here)
  .filter((name) => name.endsWith('.test.ts'))
  .flatMap((name) => {
    const text = readFileSync(`${here}/${name}`, 'utf8');
    const form =
      /^ {4}id: '(.+)',\n {4}source: '(.+)',\n {4}says:\s+'(.+)',\n {4}guard:\s+'(.+)',\n {4}test: /gm;
    const found = [...text.matchAll(form)].map(([, id, source, says, guard]) => ({
      id,
      source,
      says,
      guard,
    }));
    const begun = text.match(/^ {4}id: /gm)?.length ?? 0;
    assert.equal(
      found.length,
      begun,
      `${name}: every statement has id, source, says, guard and test, in this order`,
    );
    return found;
  });

const all = [...written, ...provedElsewhere.map(({ proof: _, ...statement }) => statement)];

/** What stands behind `<file>: <words>`. */
const textAt = (folder: string, place: string): [text: string, words: string] => {
  const [file = '', ...words] = place.split(': ');
  return [readFileSync(`${server}/${folder}${file}`, 'utf8'), words.join(': ')];
};

describe('the table of security statements', () => {
  it('is long, and each statement has an id of its own', () => {
    assert.ok(written.length >= 75, `${written.length} with a test here`);
    const ids = all.map(({ id }) => id);
    assert.deepEqual(
      ids.filter((id, at) => ids.indexOf(id) !== at),
      [],
    );
  });

  it('names a guard that is there', () => {
    for (const { id, guard } of all) {
      const [text, words] = textAt('src/', guard!);
      assert.match(text, new RegExp(`\\b${words}\\b`), `${id} ${guard}`);
    }
  });

  it('names a proof that is there, where it is proved elsewhere', () => {
    for (const { id, proof } of provedElsewhere) {
      const [text, words] = textAt('', proof);
      assert.ok(text.includes(words), `${id} ${proof}`);
    }
  });

  it('is what the guide says, row by row', () => {
    const guide = readFileSync(`${server}/../docs/guides/security.md`, 'utf8');
    const rows = guide.split('\n').filter((line) => /^\| [A-Z]+-\d+ /.test(line));
    const wanted = all.map(({ id, says, source, guard }) => `| ${id} | ${says} | ${source} | \`${guard}\` |`);
    assert.deepEqual(rows.toSorted(), wanted.toSorted());
  });
});
