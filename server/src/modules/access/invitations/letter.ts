import type { Mail } from '../mails/service.ts';

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};
const escaped = (text: string): string => text.replace(/[&<>"']/g, (sign) => entities[sign]!);

/**
 * A name somebody chose, as it may stand in a mail to a stranger: one short line, and nothing that a mail program would
 * make a link of, since tenants can be made and named by anybody.
 */
function presentable(name: string, otherwise: string): string {
  const line = name.replace(/[\p{C}\p{Z}]+/gu, ' ').trim();
  return line === '' || line.length > 80 || /[<>/\\@:]|\.\S/.test(line) ? otherwise : line;
}

export interface Letter {
  to: string;
  tenant: { id: string; name: string };
  role: string;
  link: string;
  expiresAt: Date;
}

/** The mail that brings an invitation. */
export function invitationLetter({ to, tenant, role, link, expiresAt }: Letter): Mail {
  const name = presentable(tenant.name, tenant.id);
  const until = `${expiresAt.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
  const subject = `You are invited to ${name}`;
  const greeting = `You are invited to join ${name} with the role ${role}.`;
  const ending = `This link works once, until ${until}. If you did not expect it, you can ignore this mail.`;
  const text = [greeting, '', 'Accept the invitation:', link, '', ending, ''].join('\n');
  const html = [
    '<!doctype html>',
    `<html lang="en"><head><meta charset="utf-8"><title>${escaped(subject)}</title></head><body>`,
    `<p>${escaped(greeting)}</p>`,
    `<p><a href="${escaped(link)}">Accept the invitation</a></p>`,
    `<p>${escaped(ending)}</p>`,
    '</body></html>',
    '',
  ].join('\n');
  return { to, subject, text, html };
}
