import type { App } from '#platform/context.ts';
import type { Mail } from '#platform/mail.ts';

const escaped = (text: string): string =>
  text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');

/** Paragraphs as text and as HTML. Whatever an account chose for itself stays out: a stranger may have given the address. */
function written(to: string, subject: string, paragraphs: string[], link?: string): Mail {
  return {
    to,
    subject,
    text: `${paragraphs.join('\n\n')}\n`,
    html: paragraphs
      .map((one) =>
        one === link ? `<p><a href="${escaped(one)}">${escaped(one)}</a></p>` : `<p>${escaped(one)}</p>`,
      )
      .join('\n'),
  };
}

/** The mail with the token; good for an hour. */
export function resetMail(app: App, to: string, tenant: string, token: string): Mail {
  const page = app.config.PASSWORD_RESET_URL;
  const shown = page ? `${page}#token=${token}` : token;
  return written(
    to,
    'Reset your password',
    [
      `Somebody asked to reset the password of the account with this address (tenant ${tenant}).`,
      page
        ? 'Open this address within an hour to choose another one:'
        : `Send this token within an hour to POST ${app.config.publicUrl}/v1/auth/reset-password/confirm, with a new password:`,
      shown,
      'It works once. If it was not you, there is nothing to do: your password stays as it is.',
    ],
    page ? shown : undefined,
  );
}

const notices = {
  changed: 'The password of the account with this address was changed, and its other sessions were ended.',
  reset: 'The password of the account with this address was reset by mail, and all its sessions were ended.',
  mfa_disabled: 'Multi-factor authentication of the account with this address was disabled.',
};

/** Tells the owner of what was done, so that somebody who did not do it learns of it. */
export const noticeMail = (to: string, tenant: string, what: keyof typeof notices): Mail =>
  written(to, 'Your sign-in was changed', [
    `${notices[what]} (Tenant ${tenant}.)`,
    'If it was not you, reset your password now and tell your administrator.',
  ]);
