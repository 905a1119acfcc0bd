import type { AddressInfo } from 'node:net';
import { type ParsedMail, simpleParser } from 'mailparser';
import { SMTPServer } from 'smtp-server';
import { eventually } from './harness.ts';

/** A mail server on loopback that keeps what it is given. */
export interface Mailbox {
  /** For SMTP_URL. */
  url: string;
  /** What arrived for an address, oldest first. */
  mailsTo: (address: string) => ParsedMail[];
  /** The nth mail for an address (1 is the first), once it is there. */
  nth: (address: string, n: number) => Promise<ParsedMail>;
  close: () => void;
}

export async function openMailbox(): Promise<Mailbox> {
  const mails: { to: string[]; mail: ParsedMail }[] = [];
  const smtp = new SMTPServer({
    disabledCommands: ['AUTH', 'STARTTLS'],
    onData: (stream, session, done) => {
      const to = session.envelope.rcptTo.map(({ address }) => address.toLowerCase());
      simpleParser(stream).then((mail) => {
        mails.push({ to, mail });
        done();
      }, done);
    },
  });
  await new Promise<void>((resolve) => smtp.listen(0, '127.0.0.1', resolve));
  const { port } = smtp.server.address() as AddressInfo;
  const mailsTo = (address: string) =>
    mails.filter(({ to }) => to.includes(address.toLowerCase())).map(({ mail }) => mail);
  return {
    url: `smtp://127.0.0.1:${port}`,
    mailsTo,
    nth: (address, n) => eventually(`mail ${n} to ${address}`, async () => mailsTo(address)[n - 1]),
    close: () => smtp.close(),
  };
}
