const form =
  /^[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/**
 * An e-mail address in the one form that addresses are compared in, or undefined for what is none. ASCII alone, without
 * quoted names and numeric hosts: letters that look or fold alike must never make two addresses one, and whoever sends
 * the mail must not read another address out of it.
 */
export function canonicalEmail(text: string): string | undefined {
  if (text.length > 254 || !/^[\x21-\x7e]+$/.test(text)) return undefined;
  const email = text.toLowerCase();
  return form.test(email) ? email : undefined;
}
