import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from './config.ts';
import type { Log } from './log.ts';

/** A mail as it is written; what is HTML in it has been escaped by whoever wrote it. */
export interface Mail {
  to: string;
  subject: string;
  text: string;
  html: string;
}

/** The way mails leave. */
export interface Mailer {
  /**
   * @param id makes the Message-ID, so that a mail sent twice is recognised as one
   * @throws Error when no server has taken it
   */
  send(id: string, mail: Mail): Promise<void>;
  /** Says where mails go, when they can go there. @throws Error */
  check(): Promise<string>;
  close(): void;
}

/** SMTP (RFC 5321) where SMTP_URL is set; in development else files under DATA_DIR/outbox; in production else none. */
export async function openMailer(config: Config, log: Log): Promise<Mailer | undefined> {
  const from = config.MAIL_FROM;
  const domain = /@([^>\s]+)>?$/.exec(from)?.[1] ?? 'localhost';
  const messageOf = (id: string, mail: Mail) => ({ ...mail, from, messageId: `<${id}@${domain}>` });
  if (config.SMTP_URL) {
    const { createTransport } = await import('nodemailer');
    const transport = createTransport(config.SMTP_URL, {
      // Nothing of a mail may name a file or an address to read.
      disableFileAccess: true,
      disableUrlAccess: true,
      connectionTimeout: config.EXT_CALL_TIMEOUT_MS,
      greetingTimeout: config.EXT_CALL_TIMEOUT_MS,
      socketTimeout: config.EXT_CALL_TIMEOUT_MS,
    } as object);
    return {
      send: async (id, mail) => void (await transport.sendMail(messageOf(id, mail))),
      check: async () => {
        await transport.verify();
        return new URL(config.SMTP_URL!).host;
      },
      close: () => transport.close(),
    };
  }
  if (config.production) return undefined;
  const outbox = join(config.dataDir, 'outbox');
  return {
    send: async (id, mail) => {
      const { createTransport } = await import('nodemailer');
      const compose = createTransport({ streamTransport: true, buffer: true, newline: 'unix' });
      const { message } = await compose.sendMail(messageOf(id, mail));
      await mkdir(outbox, { recursive: true });
      await writeFile(join(outbox, `${id}.eml`), message as unknown as Buffer, { mode: 0o600 });
      log.info({ file: `outbox/${id}.eml`, to: mail.to, subject: mail.subject }, 'a mail was written');
    },
    check: async () => `files in ${outbox}`,
    close: () => {},
  };
}
