import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { SMTPServer } from 'smtp-server';
import { systemCtx } from '#platform/context.ts';
import { sql } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { eventually, newTenant, useOwnServer } from '#test/harness.ts';
import type { Running } from '../../../app.ts';
import { queueMail } from './service.ts';

const mail = {
  to: 'ann@example.com',
  subject: 'A word of mouth',
  text: 'The token is swordfish.',
  html: '<p>The token is swordfish.</p>',
};

const facts = (server: Running, tenant: string) =>
  server.app.database
    .tenant(tenant)
    .rows<{ type: string }>(
      sql`select type from facts where tenant_id = ${tenant} and resource_type = 'mail' order by id`,
    );

describe('a mail', () => {
  let smtp: SMTPServer;
  const running = useOwnServer(async () => {
    smtp = new SMTPServer({
      disabledCommands: ['AUTH', 'STARTTLS'],
      onData: (stream, _session, done) => {
        const parts: Buffer[] = [];
        stream.on('data', (part) => parts.push(part));
        stream.on('end', () => {
          if (refusals-- > 0) return done(Object.assign(new Error('not now'), { responseCode: 451 }));
          received.push(Buffer.concat(parts).toString());
          done();
        });
      },
    });
    await new Promise<void>((resolve) => smtp.listen(0, '127.0.0.1', resolve));
    const { port } = smtp.server.address() as AddressInfo;
    return { SMTP_URL: `smtp://127.0.0.1:${port}`, MAIL_FROM: 'House <house@example.com>' };
  });
  let refusals = 0;
  const received: string[] = [];

  after(() => smtp.close());

  it('reaches its server, again where that refused it at first, and is then forgotten', async () => {
    const server = running();
    const { tenant } = await newTenant('admin', server);
    const ctx = systemCtx(server.app, tenant, uuidv7());
    refusals = 1;
    await ctx.db.batch(queueMail(ctx, 'greeting', mail));
    const [row] = await ctx.db.rows<{ kind: string; sealed: Buffer }>(
      sql`select kind, sealed from mails where tenant_id = ${tenant}`,
    );
    assert.equal(row!.kind, 'greeting');
    assert.ok(!row!.sealed.includes('swordfish') && !row!.sealed.includes('ann@'), 'it lies sealed');
    server.app.nudgeRelay();
    await eventually('the mail', async () => received.length === 1);
    assert.match(received[0]!, /^From: House <house@example\.com>/m);
    assert.match(received[0]!, /^To: ann@example\.com/m);
    assert.match(received[0]!, /^Message-ID: <[0-9a-f-]{36}@example\.com>/m);
    assert.match(received[0]!, /swordfish/);
    await eventually(
      'its row to go',
      async () => (await ctx.db.rows(sql`select 1 from mails where tenant_id = ${tenant}`)).length === 0,
    );
    assert.deepEqual(
      (await facts(server, tenant)).map(({ type }) => type),
      ['mail.queued', 'mail.sent'],
    );
  });
});

describe('a mail without a server', () => {
  const own = useOwnServer(async () => ({}));

  it('is a file of the outbox', async () => {
    const running = own();
    const { tenant } = await newTenant('admin', running);
    const ctx = systemCtx(running.app, tenant, uuidv7());
    await ctx.db.batch(queueMail(ctx, 'greeting', mail));
    running.app.nudgeRelay();
    const outbox = join(running.app.config.dataDir, 'outbox');
    const text = await eventually('the file', async () => {
      const names = await readdir(outbox).catch(() => []);
      const texts = await Promise.all(names.map((name) => readFile(join(outbox, name), 'utf8')));
      return texts.find((one) => one.includes('swordfish'));
    });
    assert.match(text, /^Subject: A word of mouth$/m);
  });
});
