import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import test from 'node:test';
import fc from 'fast-check';
import { type Chunk, chunkText, indexedText } from './chunk.ts';

const markdown = { content_type: 'text/markdown' };
const plain = { content_type: 'text/plain' };
const sentence = 'The quick build finishes before the slow one has started its first step. ';

const texts = (chunks: Chunk[]) => chunks.map((chunk) => chunk.text);

test('a small document is one chunk under its headings', () => {
  const source = '# Guide\n\nShort words.\n\nMore words.\n';
  const [chunk, ...others] = chunkText(source, markdown);
  assert.equal(others.length, 0);
  assert.deepEqual(chunk, {
    index: 0,
    text: '# Guide\n\nShort words.\n\nMore words.',
    offset_start: 0,
    offset_end: 34,
    heading_path: ['Guide'],
  });
});

test('sections of level one and two are not merged, those of level three are', () => {
  const body = sentence.repeat(3).trim();
  const source = `# Top\n\n${body}\n\n## One\n\n${body}\n\n### Deep\n\n${body}\n\nTwo\n---\n\n${body}\n`;
  const chunks = chunkText(source, markdown);
  assert.deepEqual(
    chunks.map((chunk) => chunk.heading_path),
    [['Top'], ['Top', 'One', 'Deep'], ['Top', 'Two']],
  );
  assert.match(chunks[1]!.text, /^## One/);
});

test('a tiny section joins the next one and the path is what both share', () => {
  const chunks = chunkText('# Terms\n\n## Ask\n\nA question.\n\n## Tell\n\nAn answer.\n', markdown);
  assert.equal(chunks.length, 1);
  assert.deepEqual(chunks[0]!.heading_path, ['Terms']);
});

test('a heading never ends a chunk when text follows it', () => {
  const filler = sentence.repeat(13).trim();
  for (const next of [sentence.repeat(6).trim(), sentence.repeat(40).trim()]) {
    const chunks = chunkText(`# Top\n\n${filler}\n\n### Detail\n\n${next}`, markdown);
    for (const chunk of chunks) assert.doesNotMatch(chunk.text, /### Detail$/);
  }
});

test('a fence is kept whole and its content is not read as headings', () => {
  const code = `\`\`\`sh\n# not a heading\n\n${'make all\n'.repeat(60)}\`\`\``;
  const chunks = chunkText(`# Build\n\n${sentence.repeat(12)}\n\n${code}\n\nAfter.`, markdown);
  assert.ok(chunks.some((chunk) => chunk.text.includes(code)));
  assert.ok(chunks.every((chunk) => chunk.heading_path.join() === 'Build'));
});

test('a long list is cut between items and a long table between rows', () => {
  const items = Array.from({ length: 60 }, (_, n) => `- Item ${n} needs a review\n  by two people`).join(
    '\n',
  );
  for (const text of texts(chunkText(items, markdown))) {
    assert.match(text, /^- Item/);
    assert.match(text, /by two people$/);
  }
  const rows = Array.from({ length: 90 }, (_, n) => `| ${n} | value of ${n} |`).join('\n');
  for (const text of texts(chunkText(`| a | b |\n|---|---|\n${rows}`, markdown)))
    assert.match(text, /^\|.*\|$/s);
});

test('a long paragraph is cut at sentences and repeats whole sentences only', () => {
  const source = Array.from({ length: 60 }, (_, n) => `Step ${n} waits for the step before it to end.`).join(
    ' ',
  );
  const chunks = chunkText(source, plain);
  assert.ok(chunks.length > 2);
  for (const [n, chunk] of chunks.entries()) {
    assert.match(chunk.text, /^Step \d+ waits/);
    assert.match(chunk.text, /to end\.$/);
    if (n === 0) continue;
    const repeated = chunks[n - 1]!.offset_end - chunk.offset_start;
    assert.ok(repeated > 0 && repeated <= 150, `${repeated} units repeated`);
  }
});

test('nothing is repeated across a heading or when the overlap is zero', () => {
  const long = sentence.repeat(40);
  const across = chunkText(`# A\n\n${sentence.repeat(10)}\n\n# B\n\n${sentence.repeat(10)}`, markdown);
  assert.ok(across[1]!.offset_start > across[0]!.offset_end);
  const chunks = chunkText(long, { ...plain, chunk_overlap_chars: 0 });
  for (let n = 1; n < chunks.length; n += 1) assert.ok(chunks[n]!.offset_start >= chunks[n - 1]!.offset_end);
});

test('text without spaces is cut between sentences, then between words', () => {
  const han = '系统在发布之前必须通过所有检查。'.repeat(120);
  for (const text of texts(chunkText(han, plain))) {
    assert.ok(text.endsWith('。'));
    assert.ok(text.length <= 430);
  }
  const endless = '今日は良い天気です'.repeat(200);
  assert.ok(chunkText(endless, plain).length > 3);
});

test('an endless token is cut between code points', () => {
  const chunks = chunkText('😀'.repeat(5000), { ...plain, chunk_size_chars: 101, chunk_overlap_chars: 10 });
  for (const chunk of chunks) assert.equal(chunk.text.length % 2, 0);
  assert.equal(chunkText('x'.repeat(5000), plain).length, 5);
});

test('front matter is not a heading', () => {
  const chunks = chunkText('---\ntitle: Notes\n---\n\n# Real\n\nBody.', markdown);
  assert.deepEqual(chunks[0]!.heading_path, ['Real']);
});

test('CRLF text gives the same passages as LF text', () => {
  const source = `# A\n\n${sentence.repeat(20)}\n\n- one\n- two\n\n## B\n\n${sentence.repeat(9)}\n\n\`\`\`\ncode\n\`\`\`\n`;
  const unix = texts(chunkText(source, markdown));
  const windows = texts(chunkText(source.replaceAll('\n', '\r\n'), markdown));
  assert.deepEqual(
    windows.map((text) => text.replaceAll('\r\n', '\n')),
    unix,
  );
});

test('blank text has no chunks', () => {
  for (const source of ['', ' \n\t\r\n ', '\ufeff\u3000\n\n'])
    assert.deepEqual(chunkText(source, markdown), []);
});

test('an overlap as large as the chunk is refused', () => {
  const options = { ...plain, chunk_size_chars: 100, chunk_overlap_chars: 100 };
  assert.throws(() => chunkText('a', options), {
    code: 'CHUNK_OPTIONS_INVALID',
    message: 'chunk_overlap_chars must be smaller than chunk_size_chars',
  });
  for (const chunk_size_chars of [0, -1, 1.5, Number.NaN]) {
    assert.throws(() => chunkText('a', { ...plain, chunk_size_chars, chunk_overlap_chars: 0 }), {
      code: 'CHUNK_OPTIONS_INVALID',
    });
  }
});

test('the indexed text names title and headings once', () => {
  const chunk = { text: '## Gates\n\nFive of them.', heading_path: ['Release', 'Gates'] };
  assert.equal(indexedText(chunk, 'release.md'), 'release.md > Release\n\n## Gates\n\nFive of them.');
  assert.equal(indexedText({ text: 'Body', heading_path: ['Same'] }, 'Same'), 'Same\n\nBody');
  assert.equal(indexedText({ text: 'Body', heading_path: [] }), 'Body');
});

const fragment = fc.oneof(
  fc.constantFrom(
    '\n',
    '\n\n',
    '\r\n',
    '\r',
    ' ',
    '    ',
    '\u3000',
    '# ',
    '## Head',
    '### ',
    '---',
    '===',
    '***',
  ),
  fc.constantFrom(
    '```',
    '~~~~',
    '- ',
    '1. ',
    '12) ',
    '| a | b |',
    '|--|--|',
    '> ',
    '. ',
    '? ',
    '。',
    '：',
    "'",
  ),
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.lorem({ maxCount: 12, mode: 'sentences' }),
  fc.constantFrom(
    '系统在发布之前必须通过',
    'ภาษาไทยไม่มีช่องว่าง',
    '👩‍👩‍👧',
    '\ud800',
    'x'.repeat(300),
    'w '.repeat(260),
  ),
);
const sources = fc.array(fragment, { maxLength: 80 }).map((parts) => parts.join(''));
const sizes = fc.integer({ min: 1, max: 400 }).chain((size) => fc.tuple(fc.constant(size), fc.nat(size - 1)));

test('whatever the text: offsets hold, all of it is covered, in order, within bounds', () => {
  const property = (source: string, [size, overlap]: [number, number], content_type: string) => {
    const options = { content_type, chunk_size_chars: size, chunk_overlap_chars: overlap };
    const chunks = chunkText(source, options);
    let covered = 0;
    let previous: Chunk | undefined;
    for (const [index, chunk] of chunks.entries()) {
      assert.equal(chunk.index, index);
      assert.equal(source.slice(chunk.offset_start, chunk.offset_end), chunk.text);
      assert.equal(chunk.text.trim(), chunk.text);
      assert.notEqual(chunk.text, '');
      assert.ok(chunk.text.length <= Math.max(size, 2), `${chunk.text.length} units in a chunk of ${size}`);
      assert.ok((chunk.text.match(/[a-z0-9]+/gi) ?? []).length <= 200);
      assert.equal(source.slice(covered, Math.max(covered, chunk.offset_start)).trim(), '');
      if (previous) {
        assert.ok(chunk.offset_start > previous.offset_start && chunk.offset_end > previous.offset_end);
        assert.ok(previous.offset_end - chunk.offset_start <= overlap);
      }
      covered = chunk.offset_end;
      previous = chunk;
    }
    assert.equal(source.slice(covered).trim(), '');
  };
  const types = fc.constantFrom('text/markdown', 'text/plain');
  fc.assert(fc.property(sources, sizes, types, property), { numRuns: 1500 });
});

test('time grows with the length of the text, whatever its shape', () => {
  const shapes: Record<string, string> = {
    prose: `${sentence.repeat(8)}\n\n`,
    one_paragraph: sentence,
    one_token: 'x',
    han: '系统在发布之前必须通过所有检查。',
    han_endless: '系统在发布之前必须通过所有检查',
    newlines: '\n',
    spaces: ' a'.padStart(500),
    headings: '# a\n',
    rules: '---\n',
    hashes: '#',
    backticks: '`',
    fences: '```\n~~~\n',
    bars: '|',
    items: '- a\n',
    dashes: '-',
    numbers: '1. \n',
    quotes: "'",
    words: 'ab ',
    lines: 'a,b,c,1,2,3\n',
  };
  for (const [shape, unit] of Object.entries(shapes)) {
    const run = (length: number) => {
      const source = unit.repeat(Math.ceil(length / unit.length));
      const started = performance.now();
      chunkText(source, markdown);
      return performance.now() - started;
    };
    run(20_000);
    const small = Math.min(run(100_000), run(100_000));
    const large = run(400_000);
    assert.ok(
      large < 16 * small + 200,
      `${shape}: ${small.toFixed()} ms, four times the text ${large.toFixed()} ms`,
    );
  }
});
