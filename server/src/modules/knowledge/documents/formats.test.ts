import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bomb, documentXml, docx, docxAround, encryptedPdf, pdf, zip } from '#test/files.ts';
import { type Caller, callServer, testServer, useTestServer } from '#test/harness.ts';
import { codeOf, corpus, done, file, newLibrary, put, search, stored, upload } from '#test/uploads.ts';

useTestServer();

const type = {
  pdf: 'application/pdf',
  docx: 'application/vnd.openxmlformats-officedocument.wordprocessingml.document',
};

/** Uploads a file and waits for its end. */
async function taken(caller: Caller, id: string, part: ReturnType<typeof file>, status = 'succeeded') {
  const reply = await upload(caller, [corpus, { name: 'document_id', value: id }, part]);
  assert.equal(reply.status, 202, reply.text);
  const document = await done(caller, id, status);
  return { document, accepted: reply.body.data };
}

const textOf = async (caller: Caller, id: string): Promise<string> => {
  const reply = await caller.call('GET', `/v1/documents/${id}/content`);
  assert.equal(reply.status, 200, reply.text);
  return reply.text;
};

/** Every passage stands in the text of its document where it says. */
async function assertPlaced(caller: Caller, id: string, query: string) {
  const text = await textOf(caller, id);
  const found = (await search(caller, query, { top_k: 50 })).body.data.filter(
    (chunk: any) => chunk.document_id === id,
  );
  assert.ok(found.length > 0, `${query} finds ${id}`);
  for (const chunk of found) assert.equal(text.slice(chunk.offset_start, chunk.offset_end), chunk.text);
  return found[0];
}

const page = `<!DOCTYPE html><html><head><title>Lighthouse – Coast Guide</title><style>p { color: red }</style></head>
<body><nav><a href="/">Start</a> <a href="/map">Map</a></nav>
<h1>Lighthouse</h1><p>Built of <b>granite</b> on the
northern&nbsp;cliff.</p><h2>Lamp</h2><p>It turns once every <i>twelve</i> seconds.</p>
<h2>Keepers</h2><table><thead><tr><th>Keeper</th><th>Since</th></tr></thead>
<tr><td>Ada Holm</td><td>1871</td></tr><tr><td>Bo Lind</td><td>1902</td></tr></table>
<ul><li>oil at dusk<ul><li>colza only</li></ul></li><li>wick at dawn</li></ul>
<pre>  lit = dusk
  out = dawn</pre><p># is not a heading</p><script>steal('cookies')</script></body></html>`;

describe('the formats people have', () => {
  it('an HTML page keeps its headings, lists and tables, and loses what is not content', async () => {
    const mine = await newLibrary();
    const { document } = await taken(mine, 'page', file(page, 'text/html', 'lighthouse.html'));
    assert.deepEqual([document.content_type, document.warnings, document.num_pages], ['text/html', [], null]);
    const text = await textOf(mine, 'page');
    assert.equal(
      text,
      [
        '# Lighthouse',
        'Built of granite on the northern cliff.',
        '## Lamp',
        'It turns once every twelve seconds.',
        '## Keepers',
        '- Keeper: Ada Holm; Since: 1871\n- Keeper: Bo Lind; Since: 1902',
        '- oil at dusk\n  - colza only\n- wick at dawn',
        '```\n  lit = dusk\n  out = dawn\n```',
        '\\# is not a heading',
      ].join('\n\n'),
    );
    const best = await assertPlaced(mine, 'page', 'how often does the lamp turn');
    assert.deepEqual(best.heading_path.slice(0, 1), ['Lighthouse']);
    assert.deepEqual([best.page_start, best.page_end], [null, null]);
    assert.match(
      (await assertPlaced(mine, 'page', 'keeper since 1902')).text,
      /Keeper: Bo Lind; Since: 1902/,
    );
  });

  it('what of a page nobody sees is neither kept, found nor cited', async () => {
    const [mine, other] = [await newLibrary(), await newLibrary()];
    const hiding = [
      'display:none',
      ' DISPLAY : None ! important ;',
      'color:red;dis/* */play:none;display:/**/none',
      String.raw`d\69 splay:n\6fne`,
      'background:url(data:image/png;base64,AA);display:none',
      'display:none;display:nonsense',
      'visibility:hidden',
      'visibility: collapse',
      'opacity:0',
      'opacity:.0%',
      'content-visibility:hidden',
      'font-size:0',
      'font-size: .0em',
      'font-size:0.00px!important',
      'font:0/0 a',
    ];
    const parts = hiding.map((style, i) => `<p style='${style}'>Secret ${i} <b>of a bulb</b></p>`);
    const seen = [
      'display:block',
      'opacity:0.5',
      'font-size:10px',
      'font:italic 400 14px/0 Arial',
      'visibility:visible',
      'display',
      ':;;\\',
      String.raw`\110000 x:/*`,
      'color:none',
    ].map((style, i) => `<p style="${style}">Seen ${i}</p>`);
    const html = `<!doctype html><body>${parts.join('')}${seen.join('')}
      <div hidden><main>Secret main</main></div>
      <ul style="visibility:hidden"><li>Secret item<li style="visibility:visible">Seen item</ul>
      <div style="font-size:0">Secret <i style="font-size:2em">size</i><p style="font-size:13px">Seen size</p>
      <p style="font:13px Arial">Seen font</p></div>
      <table><tr><th>Lamp</th><th style="display:none">Secret</th><th>Price</th></tr>
      <tr><td>Bulb</td><td style="display:none">free</td><td>9</td></tr>
      <tr style="display:none"><td>Secret row</td><td></td><td>0</td></tr></table>
      <pre>Seen code<span style="display:none"> Secret code</span></pre>
      <template>Secret</template><noscript>Secret</noscript><dialog>Secret</dialog><div popover>Secret</div>
      <datalist><option>Secret</datalist><input type="hidden" value="Secret"><svg><title>Secret</title></svg>
      <details><summary>Seen summary</summary>Seen details</details>`;
    await taken(mine, 'sight', file(html, 'text/html', 'sight.html'));
    const text = await textOf(mine, 'sight');
    assert.doesNotMatch(text, /secret|bulb<|of a bulb|free/i);
    assert.deepEqual(
      text.split(/\n+/),
      [
        ...seen.map((_, i) => `Seen ${i}`),
        '- Seen item',
        'Seen size',
        'Seen font',
        '- Lamp: Bulb; Price: 9',
        '```',
        'Seen code',
        '```',
        'Seen summary',
        'Seen details',
      ],
      text,
    );
    const { data } = (await search(mine, 'secret of a bulb', { top_k: 50 })).body;
    assert.ok(data.every((chunk: any) => !/secret/i.test(chunk.text)));
    await taken(other, 'all', file('<p style="display:none">Secret', 'text/html', 'a.html'), 'failed');
  });

  it('a page in an old encoding is read as a browser reads it', async () => {
    const mine = await newLibrary();
    const latin = Buffer.from('<!doctype html><html><p>Caf\xe9 am K\xe4se', 'latin1');
    await taken(mine, 'guessed', file(latin, 'text/html', 'a.html'));
    assert.equal(await textOf(mine, 'guessed'), 'Café am Käse');
    const cyrillic = Buffer.from('<html><meta charset="koi8-r"><p>\xf0\xd2\xc9\xd7\xc5\xd4', 'latin1');
    await taken(mine, 'named', file(cyrillic, 'text/html', 'b.html'));
    assert.equal(await textOf(mine, 'named'), 'Привет');
    const utf16 = Buffer.from('\ufeffplain words', 'utf16le');
    await taken(mine, 'wide', file(utf16, 'text/plain', 'c.txt'));
    assert.equal(await textOf(mine, 'wide'), 'plain words');
    const sheet = Buffer.from('Ort;Preis\nK\xf6ln;3\n', 'latin1');
    const { document } = await taken(mine, 'sheet', file(sheet, 'text/csv', 'd.csv'));
    assert.equal(await textOf(mine, 'sheet'), '- Ort: Köln; Preis: 3');
    assert.equal(document.warnings[0].code, 'ENCODING_GUESSED');
  });

  it('a PDF gives its headings, paragraphs and pages', async () => {
    const mine = await newLibrary();
    const bytes = await pdf([
      [
        { text: 'Harbour rules', size: 20, top: 60 },
        { text: 'The harbour opens at six in the morning and closes at', top: 100 },
        { text: 'nine in the evening, every day of the week.', top: 114 },
        { text: 'At night nobody but the pilots may enter, and only with their lights lit.', top: 150 },
      ],
      [
        { text: 'Fees', size: 16, top: 60 },
        { text: 'A berth costs ten crowns a night, and twelve in summer.', top: 100 },
        { text: 'Whoever stays for a whole month pays for three weeks of it and no more.', top: 130 },
      ],
      [
        { text: 'Signals', size: 16, top: 60 },
        { text: 'Three blasts of the horn mean that the engines go astern.', top: 100 },
      ],
    ]);
    const { document } = await taken(mine, 'rules', file(bytes, type.pdf, 'rules.pdf'));
    assert.deepEqual(
      [document.content_type, document.num_pages, document.size_bytes],
      [type.pdf, 3, bytes.length],
    );
    const best = await assertPlaced(mine, 'rules', 'what does a berth cost in summer');
    assert.deepEqual([best.page_start, best.page_end], [2, 2]);
    assert.deepEqual(best.heading_path, ['Harbour rules', 'Fees']);
    const first = await assertPlaced(mine, 'rules', 'when does the harbour open and close');
    assert.match(first.text, /closes at nine in the evening/);
    assert.equal(first.page_start, 1);
  });

  it('a PDF is divided by its outline where it has one, without what stands on every page', async () => {
    const mine = await newLibrary();
    const pages = ['Anchors', 'Buoys', 'Cables', 'Davits', 'Engines'].map((title, i) => [
      { text: 'Manual of the harbour', top: 30 },
      { text: title, top: 60 },
      { text: `What is said of ${title.toLowerCase()} fills exactly this line ${i}.`, top: 90 },
      { text: `Page ${i + 1} of 5`, top: 780 },
    ]);
    const titles = ['Anchors', 'Buoys', 'Cables', 'Davits', 'Engines'];
    const bytes = await pdf(
      pages,
      titles.map((title, index) => ({ title, page: index })),
    );
    await taken(mine, 'manual', file(bytes, type.pdf, 'manual.pdf'));
    assert.equal(
      await textOf(mine, 'manual'),
      titles
        .map(
          (title, i) => `# ${title}\n\nWhat is said of ${title.toLowerCase()} fills exactly this line ${i}.`,
        )
        .join('\n\n'),
    );
  });

  it('a page of a PDF that is only a picture is told', async () => {
    const mine = await newLibrary();
    const bytes = await pdf([[{ text: 'Words are here.', top: 60 }], [], [{ text: 'And here.', top: 60 }]]);
    const { document } = await taken(mine, 'scan', file(bytes, type.pdf, 'scan.pdf'));
    assert.deepEqual(
      document.warnings.map(({ code, message }: any) => [code, /page 2\.$/.test(message)]),
      [['PAGES_WITHOUT_TEXT', true]],
    );
  });

  it('a Word document keeps its headings by their styles, and its tables', async () => {
    const mine = await newLibrary();
    const bytes = docx([
      { text: 'Staff handbook', style: 'Title' },
      { text: 'Holidays', style: 'heading 1' },
      {
        text: 'Everybody has thirty days a year, and whoever has children at school takes them in summer, by turns and before all others.',
      },
      { text: 'Carrying over', style: 'heading 2' },
      { text: 'Up to five days & no more go into the next year.' },
      { text: 'They are gone at the end of March, unless the work itself did not let anybody go before.' },
      {
        rows: [
          ['Office', 'Closed on'],
          ['Oslo', '17 May'],
          ['Paris', '14 July'],
        ],
      },
    ]);
    const { document } = await taken(mine, 'staff', file(bytes, type.docx, 'staff.docx'));
    assert.equal(document.content_type, type.docx);
    assert.match(await textOf(mine, 'staff'), /^# Staff handbook\n\n# Holidays\n\nEverybody/);
    const best = await assertPlaced(mine, 'staff', 'how many days go into the next year');
    assert.deepEqual(best.heading_path, ['Holidays', 'Carrying over']);
    assert.match(
      (await assertPlaced(mine, 'staff', 'office closed 14 July')).text,
      /Office: Paris; Closed on: 14 July/,
    );
  });

  it('a CSV becomes rows that say what their values are', async () => {
    const mine = await newLibrary();
    const rows = 'Ship;Tons;Note\nAda;100;"old; but sound"\nBea;;"two\nlines"\n';
    const { document } = await taken(mine, 'ships', file(rows, 'text/csv', 'ships.csv'));
    assert.equal(document.content_type, 'text/csv');
    assert.equal(
      await textOf(mine, 'ships'),
      '- Ship: Ada; Tons: 100; Note: old; but sound\n- Ship: Bea; Note: two lines',
    );
    await taken(mine, 'numbers', file('1,2\n3,4\n', 'application/octet-stream', 'numbers.csv'));
    assert.equal(await textOf(mine, 'numbers'), '- 1; 2\n- 3; 4');
    await taken(mine, 'indexed', file(',Name,Born\n0,Ada,1815\n', 'text/csv', 'frame.csv'));
    assert.equal(await textOf(mine, 'indexed'), '- 0; Name: Ada; Born: 1815');
    await taken(mine, 'tabs', file('Name\tBorn\nAda\t1815\n', 'application/octet-stream', 'people.tsv'));
    assert.equal(await textOf(mine, 'tabs'), '- Name: Ada; Born: 1815');
    assert.equal((await assertPlaced(mine, 'ships', 'tons of the ship Ada')).document_id, 'ships');
  });

  it('a text sent as such may be Markdown, HTML or CSV, and plain text is never taken for more', async () => {
    const mine = await newLibrary();
    await stored(mine, 'html', '<h1>Tides</h1><p>High water comes twice a day.', {
      content_type: 'text/html',
    });
    assert.equal(await textOf(mine, 'html'), '# Tides\n\nHigh water comes twice a day.');
    await stored(mine, 'ending', 'a,b\n1,2', { filename: 'x.csv' });
    assert.equal(await textOf(mine, 'ending'), '- a: 1; b: 2');
    const source = '<!doctype html><html><p>source';
    await stored(mine, 'plain', source, { content_type: 'text/plain' });
    assert.equal(await textOf(mine, 'plain'), source);
    assert.deepEqual(codeOf(await put(mine, { text: 'x', content_type: 'application/json' })), [
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    ]);
  });
});

describe('what a file is', () => {
  it('is told by its content; a type or name that says otherwise is told back', async () => {
    const mine = await newLibrary();
    const bytes = await pdf([[{ text: 'Words of a PDF.', top: 60 }]]);
    for (const [id, part, mismatch] of [
      ['as-text', file(bytes, 'text/plain', 'notes.txt'), true],
      ['as-word', file(bytes, type.docx, 'notes.docx'), true],
      ['by-name', file(bytes, 'application/octet-stream', 'notes.md'), true],
      ['unnamed', file(bytes, 'application/octet-stream', 'notes.bin'), false],
      ['as-image', file(bytes, 'image/png', 'notes.png'), true],
    ] as const) {
      const { document, accepted } = await taken(mine, id, part);
      assert.equal(document.content_type, type.pdf, id);
      const codes = document.warnings.map(({ code }: any) => code);
      assert.deepEqual(codes, mismatch ? ['CONTENT_TYPE_MISMATCH'] : [], id);
      assert.deepEqual(accepted.warnings ?? [], document.warnings, id);
    }
    const untyped = { name: 'file', value: 'city,rain\nBergen,high\n', filename: 'rain.csv' };
    assert.equal((await taken(mine, 'untyped', untyped)).document.content_type, 'text/csv');
    const { document } = await taken(
      mine,
      'page',
      file('<!DOCTYPE html><p>Not Found', 'text/plain', 'x.txt'),
    );
    assert.deepEqual(
      [document.content_type, document.warnings[0].code],
      ['text/html', 'CONTENT_TYPE_MISMATCH'],
    );
  });

  it('that is none of ours is refused at once, and said', async () => {
    const mine = await newLibrary();
    const sheet = zip([
      { name: '[Content_Types].xml', data: 'x' },
      { name: 'xl/workbook.xml', data: 'x' },
    ]);
    for (const [part, said] of [
      [file(Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), 'text/plain', 'a.txt'), /PNG/],
      [file(sheet, 'application/zip', 'a.xlsx'), /Excel/],
      [file(zip([{ name: 'a.txt', data: 'x' }]), 'application/zip', 'a.zip'), /archive/],
      [file(Buffer.from('d0cf11e0a1b11ae1', 'hex'), type.docx, 'a.docx'), /without a password/],
      [file('only words', type.pdf, 'a.pdf'), /a PDF, which its content is not/],
      [file('only words', 'application/octet-stream', 'a.docx'), /a Word document, which/],
      [file('only words', 'application/rtf', 'a.txt'), /application\/rtf/],
      [file('PK\x03\x04 broken', 'application/zip', 'a.zip'), /zip/],
    ] as const) {
      const reply = await upload(mine, [corpus, part]);
      assert.deepEqual(codeOf(reply), [415, 'UNSUPPORTED_MEDIA_TYPE'], reply.text);
      assert.match(reply.body.error.message, said);
    }
    for (const part of [file('', type.pdf, 'a.pdf'), file(' \n', 'text/html', 'a.html')])
      assert.deepEqual(codeOf(await upload(mine, [corpus, part])), [422, 'INGEST_VALIDATION_ERROR']);
    assert.deepEqual((await mine.call('GET', '/v1/documents')).body.data, []);
  });
});

const entity = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>';
const laughs = `<!DOCTYPE d [<!ENTITY l0 "lol">${Array.from({ length: 12 }, (_, i) => `<!ENTITY l${i + 1} "${`&l${i};`.repeat(10)}">`).join('')}]>`;
const asks = (name: string) => `<w:p><w:r><w:t>before &${name}; after</w:t></w:r></w:p>`;
const part = (data: string) => ({ name: 'word/document.xml', data });

describe('a file made to do harm', () => {
  it('ends failed by itself, saying why, and the next one is read', async () => {
    const mine = await newLibrary();
    const sound = await pdf([[{ text: 'Sound.', top: 60 }]]);
    const hostile: [string, Buffer, string, RegExp][] = [
      ['an encrypted PDF', encryptedPdf(), type.pdf, /encrypted: remove its password/],
      ['a PDF that is none', Buffer.from('%PDF-1.7\nnonsense'), type.pdf, /damaged/],
      ['half a PDF', sound.subarray(0, sound.length >> 1), type.pdf, /damaged/],
      ['a PDF of pictures', await pdf([[], []]), type.pdf, /pictures/],
      ['half a DOCX', docx([{ text: 'x' }]).subarray(0, 300), type.docx, /damaged/],
      ['a DOCX without its text', zip([{ name: 'word/styles.xml', data: '<x/>' }]), type.docx, /damaged/],
      ['a DOCX of no words', docx([{ text: ' ' }]), type.docx, /no text/],
      ['an outside entity', docxAround(part(documentXml(asks('x'), entity))), type.docx, /damaged/],
      ['a billion laughs', docxAround(part(documentXml(asks('l12'), laughs))), type.docx, /damaged/],
      [
        'deep XML',
        docxAround(part(documentXml('<w:p>'.repeat(50_000) + '</w:p>'.repeat(50_000)))),
        type.docx,
        /damaged/,
      ],
      ['deep HTML', Buffer.from(`<html>${'<div>'.repeat(100_000)}x`), 'text/html', /deeper than 500/],
      ['an open quote', Buffer.from('a,b\n1,"open\n'), 'text/csv', /quote is not closed/],
      [
        'a bomb that says so',
        docxAround({ ...part(''), data: bomb(1_024), deflated: true, claimedSize: 2 ** 30 }),
        type.docx,
        /unpacks to/,
      ],
    ];
    let n = 0;
    for (const [what, bytes, media, why] of hostile) {
      const { document } = await taken(mine, `bad-${++n}`, file(bytes, media, 'x'), 'failed');
      assert.match(document.failure_reason, why, what);
      assert.doesNotMatch(document.failure_reason, /\n|\.ts|node_modules|root:/, what);
      assert.equal(document.num_chunks, null);
    }
    await taken(mine, 'good', file(sound, type.pdf, 'sound.pdf'));
    assert.equal((await search(mine, 'sound')).body.data[0].document_id, 'good');
    assert.deepEqual(codeOf(await mine.call('GET', '/v1/documents/bad-1/content')), [
      409,
      'DOCUMENT_NOT_EXTRACTED',
    ]);
  });

  it('a PDF of 500 pages is read whole', async () => {
    const mine = await newLibrary();
    const pages = Array.from({ length: 500 }, (_, page) =>
      Array.from({ length: 8 }, (_, line) => ({
        text: `Entry ${page * 8 + line} lies in drawer d${page * 31 + line}x.`,
        top: 60 + line * 30,
      })),
    );
    const { document } = await taken(mine, 'long', file(await pdf(pages), type.pdf, 'long.pdf'));
    assert.equal(document.num_pages, 500);
    const found = (await search(mine, 'drawer d9303x', { top_k: 1 })).body.data[0];
    assert.deepEqual([found.page_start <= 301, found.page_end >= 301], [true, true]);
    assert.match(found.text, /d9303x/);
    // Rows at the edges of pages differ by their numbers alone, and are no page numbers.
    const entries = (await textOf(mine, 'long')).match(/Entry \d+ lies/g);
    assert.equal(entries?.length, 4_000);
  });
});

describe('the content of a document', () => {
  it('comes back byte for byte, to be saved and never shown', async () => {
    const mine = await newLibrary();
    const bytes = await pdf([[{ text: 'Kept as sent.', top: 60 }]]);
    await taken(mine, 'kept', file(bytes, type.pdf, "Ä 'report'.pdf"));
    const { server } = await testServer();
    const reply = await server!.inject({
      method: 'GET',
      url: '/v1/documents/kept/content?original=true',
      headers: { authorization: `Bearer ${mine.token}` },
    });
    assert.deepEqual(reply.rawPayload, bytes);
    assert.equal(reply.headers['content-type'], type.pdf);
    assert.equal(
      reply.headers['content-disposition'],
      `attachment; filename*=UTF-8''%C3%84%20%27report%27.pdf`,
    );
    assert.equal(reply.headers['x-content-type-options'], 'nosniff');
    assert.match(String(reply.headers['content-security-policy']), /sandbox/);
    const html = await taken(
      mine,
      'html',
      file('<html><script>alert(1)</script><p>x', 'text/html', 'x.html'),
    );
    assert.equal(html.document.status, 'succeeded');
    const text = await mine.call('GET', '/v1/documents/html/content');
    assert.equal(text.headers['content-type'], 'text/plain; charset=utf-8');
    assert.equal(text.text, 'x');
  });

  it('is told by its hash, and the same bytes a second time are told too', async () => {
    const mine = await newLibrary();
    await stored(mine, 'one', 'the very same words');
    const twin = await put(mine, { document_id: 'two', text: 'the very same words' });
    assert.deepEqual([twin.status, twin.body.data.duplicate_of], [202, 'one']);
    const [one, two] = [await done(mine, 'one'), await done(mine, 'two')];
    assert.equal(one.content_hash, two.content_hash);
    assert.match(one.content_hash, /^[0-9a-f]{64}$/);
    assert.equal((await put(mine, { text: 'other words' })).body.data.duplicate_of, undefined);
    const again = await put(mine, { document_id: 'one', text: 'the very same words', overwrite: true });
    assert.deepEqual([again.status, again.body.data.duplicate_of], [202, 'two']);
    await done(mine, 'one');
  });

  it('stays what its passages are cut from until new content has been read', async () => {
    const mine = await newLibrary();
    await stored(mine, 'a', 'the first words');
    const bad = Buffer.from('%PDF-1.7\nnonsense');
    const over = await upload(mine, [
      corpus,
      { name: 'document_id', value: 'a' },
      { name: 'overwrite', value: 'true' },
      file(bad, type.pdf, 'a.pdf'),
    ]);
    assert.equal(over.status, 202, over.text);
    await done(mine, 'a', 'failed');
    assert.equal(await textOf(mine, 'a'), 'the first words');
    await assertPlaced(mine, 'a', 'first words');
    assert.equal(
      (
        await callServer(
          await (await import('#test/harness.ts')).testServer(),
          'GET',
          '/v1/documents/a/content',
        )
      ).status,
      401,
    );
  });
});
