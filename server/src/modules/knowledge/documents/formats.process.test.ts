import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bomb, docx, docxAround } from '#test/files.ts';
import { newTenant, startServer } from '#test/harness.ts';
import { corpus, done, file, newLibrary, stored, upload } from '#test/uploads.ts';

// Each server is alone with its database, so that nobody else's worker, with other limits, takes its documents.

const word = 'application/vnd.openxmlformats-officedocument.wordprocessingml.document';

describe('a document', () => {
  it('that takes more memory than allowed ends alone', async () => {
    const server = await startServer({ PARSE_MEMORY_MB: '96' });
    try {
      const mine = await newLibrary(server);
      const send = (id: string, bytes: Buffer, media: string) =>
        upload(mine, [corpus, { name: 'document_id', value: id }, file(bytes, media, 'x')], {}, server);
      // It unpacks to two gigabytes and says a thousand bytes.
      const lying = docxAround({
        name: 'word/document.xml',
        data: bomb(2_048),
        deflated: true,
        claimedSize: 1_000,
      });
      assert.equal((await send('bomb', lying, word)).status, 202);
      assert.equal((await send('fine', docx([{ text: 'Fine words.' }]), word)).status, 202);
      await done(mine, 'fine');
      assert.match((await done(mine, 'bomb', 'failed')).failure_reason, /more than the 96 MB of memory/);
      assert.equal((await send('after', docx([{ text: 'Words after it.' }]), word)).status, 202);
      await done(mine, 'after');
    } finally {
      await server.stop();
    }
  });

  it('that takes more time than allowed ends alone', async () => {
    // Less than a reader needs to begin.
    const server = await startServer({ PARSE_TIMEOUT_MS: '100' });
    try {
      const mine = await newLibrary(server);
      const cells = 'one,two,three\n'.repeat(200_000);
      const id = { name: 'document_id', value: 'slow' };
      assert.equal(
        (await upload(mine, [corpus, id, file(cells, 'text/csv', 'x.csv')], {}, server)).status,
        202,
      );
      assert.match((await done(mine, 'slow', 'failed')).failure_reason, /longer than the 0.1 s/);
      await stored(mine, 'plain', 'words that need no reader');
    } finally {
      await server.stop();
    }
  });

  it('and one that is merely huge leave the server answering', async () => {
    const server = await startServer({ PARSE_MAX_CHARS: '1000000' });
    try {
      const [mine, other] = [await newLibrary(server), await newTenant('admin', server)];
      // A million cells.
      const cells = Array.from({ length: 100_000 }, (_, i) =>
        Array.from({ length: 10 }, (_, j) => (i * j) % 997).join(','),
      );
      const csv = `a,b,c,d,e,f,g,h,i,j\n${cells.join('\n')}`;
      const id = { name: 'document_id', value: 'cells' };
      const reply = await upload(mine, [corpus, id, file(csv, 'text/csv', 'cells.csv')], {}, server);
      assert.equal(reply.status, 202, reply.text);
      let answered = 0;
      const status = async () => (await mine.call('GET', '/v1/documents/cells')).body.data;
      let document = await status();
      for (; !['succeeded', 'failed'].includes(document.status); document = await status()) {
        assert.equal((await other.call('GET', '/v1/identity/me')).status, 200);
        answered += document.status === 'processing' ? 1 : 0;
      }
      assert.ok(answered > 20, `${answered} requests were answered while it was read`);
      assert.match(document.failure_reason, /more than 1000000 characters of text. Split it/);
    } finally {
      await server.stop();
    }
  });
});
