import type { Ctx } from '#platform/context.ts';
import { decrypt, encrypt } from '#platform/crypto.ts';
import type { SealedColumn } from '#platform/db/reseal.ts';
import type { Statement } from '#platform/db/sql.ts';
import { unavailable } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { Mail } from '#platform/mail.ts';
import { deleteMail, deleteMailsOf, failMail, findMail, insertMail } from './store.ts';

export type { Mail } from '#platform/mail.ts';
export { dropMails } from './store.ts';

/** @throws ApiError 503 MAIL_NOT_CONFIGURED when mails can not leave: asked before anything else, so that the answer says nothing about anybody */
export function requireMail(ctx: Ctx): void {
  if (!ctx.app.mail) {
    const message = 'This server can not send mail: its operator has to set SMTP_URL.';
    throw unavailable('MAIL_NOT_CONFIGURED', message, 3_600);
  }
}

const boundTo = (tenant: string, id: string) => `mail ${tenant} ${id}`;

export const sealedMails: SealedColumn = {
  table: 'mails',
  column: 'sealed',
  key: { tenant_id: 'text', id: 'uuid' },
  context: ({ tenant_id, id }) => boundTo(tenant_id, id),
};

/**
 * The statements that put a mail on its way; they belong in the transaction of what the mail tells. It is sent by a job
 * once that is committed, and again until a server has taken it.
 * @param kind what it is about, e.g. `invitation`; with whom it is to, the only thing of it that is written in the clear
 * @param identityId whom it is to, where that is an identity; it goes with it
 */
export function queueMail(ctx: Ctx, kind: string, mail: Mail, identityId?: string): Statement[] {
  const id = uuidv7();
  const sealed = encrypt(ctx.app.keys.encryption, JSON.stringify(mail), boundTo(ctx.tenant, id));
  return [
    insertMail(ctx.tenant, id, kind, sealed, identityId, new Date()),
    fact(ctx, { id, type: 'mail.queued', resource_type: 'mail', resource_id: id, data: { kind } }),
  ];
}

/** Sends a queued mail. Killed between sending and forgetting, it is sent again under the same Message-ID. */
export async function sendMail(ctx: Ctx, id: string): Promise<void> {
  const row = await findMail(ctx.db, id);
  if (!row) return;
  if (!ctx.app.mail) throw new Error('mails can not leave: SMTP_URL is not set');
  const mail = JSON.parse(decrypt(ctx.app.keys.encryption, row.sealed, boundTo(ctx.tenant, id)).toString());
  await ctx.app.mail.send(id, mail);
  await ctx.db.batch([
    deleteMail(ctx.tenant, id),
    fact(ctx, {
      type: 'mail.sent',
      resource_type: 'mail',
      resource_id: id,
      data: { kind: row.kind },
    }),
  ]);
}

/** Removes mails to an identity that have not left. */
export const forgetMailsOf = async (ctx: Ctx, identityId: string): Promise<void> =>
  void (await ctx.db.run(deleteMailsOf(ctx.tenant, identityId)));

/** Gives a mail up: no server has taken it for a long time. */
export async function giveUpMail(ctx: Ctx, id: string, reason: unknown): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    const [failed] = await tx.rows(
      failMail(ctx.tenant, id, reason instanceof Error ? reason.message : 'unknown'),
    );
    if (!failed) return;
    await tx.run(
      fact(ctx, {
        type: 'mail.failed',
        resource_type: 'mail',
        resource_id: id,
        outcome: 'failure',
        data: { kind: failed.kind },
      }),
    );
  });
}
