import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { simpleParser } from 'mailparser';
import { Secret, TOTP } from 'otpauth';
import type { Running } from '../src/app.ts';
import { type Caller, callServer, dataDirs, eventually, type Reply, testServer } from './harness.ts';

// People with passwords and second factors, as tests need them.

let named = 0;

export const goodPassword = 'a walnut opens the gate';

export interface Person extends Caller {
  username: string;
  password: string;
  server: Running;
}

export interface PersonOptions {
  server?: Running;
  username?: string;
  password?: string;
  email?: string;
  role?: string;
  /** An admin whose tenant the person joins; else it has one of its own. */
  by?: Caller;
}

/** Registers somebody with a password. */
export async function newPerson(options: PersonOptions = {}): Promise<Person> {
  const server = options.server ?? (await testServer());
  const username = options.username ?? `person-${++named}-${Date.now().toString(36)}`;
  const password = options.password ?? goodPassword;
  const reply = await callServer(server, 'POST', '/v1/auth/register', {
    body: {
      username,
      password,
      ...(options.email ? { email: options.email } : {}),
      ...(options.role ? { role: options.role } : {}),
    },
    ...(options.by ? { token: options.by.token } : {}),
  });
  if (reply.status !== 200) throw new Error(`registration answered ${reply.status}: ${reply.text}`);
  const token = reply.body.access_token;
  return {
    server,
    username,
    password,
    tenant: reply.body.identity.tenant_id,
    id: reply.body.identity.id,
    token,
    call: (method, url, body, headers) =>
      callServer(server, method, url, {
        token,
        ...(body === undefined ? {} : { body }),
        ...(headers ? { headers } : {}),
      }),
  };
}

/** Signs in, from an address where one is given (needs TRUST_PROXY=1). */
export const signIn = (
  {
    server,
    username,
    password,
    tenant,
  }: Pick<Person, 'server' | 'username' | 'password'> & { tenant?: string },
  address?: string,
): Promise<Reply> =>
  callServer(server, 'POST', '/v1/auth/login', {
    body: { username, password, ...(tenant === undefined ? {} : { tenant }) },
    ...(address ? { headers: { 'x-forwarded-for': address } } : {}),
  });

/** Completes a sign-in with a second factor. */
export const challenge = (server: Running, body: object): Promise<Reply> =>
  callServer(server, 'POST', '/v1/auth/mfa/challenge', { body });

/** Signs in as far as the password goes; answers the token that waits for a second factor. */
export async function awaited(person: Person): Promise<string> {
  const reply = await signIn(person);
  assert.equal(reply.status, 200, reply.text);
  assert.deepEqual(Object.keys(reply.body), ['mfa_required', 'mfa_token', 'expires_in']);
  assert.equal(reply.body.mfa_required, true);
  return reply.body.mfa_token;
}

/** Waits while a time step is about to end, so that what a test computes and what the server sees are the same step. */
export async function steadyClock(): Promise<void> {
  const left = 30_000 - (Date.now() % 30_000);
  if (left < 2_000) await new Promise((resolve) => setTimeout(resolve, left));
}

/** The code of the present time step, or of so many steps later. */
export const codeOf = (secret: string, steps = 0): string =>
  TOTP.generate({ secret: Secret.fromBase32(secret), timestamp: Date.now() + steps * 30_000 });

/** A code that is none. */
export const wrongCode = (secret: string): string => {
  const right = [-2, -1, 0, 1, 2, 3].map((steps) => codeOf(secret, steps));
  return ['000000', '111111', '222222', '333333', '444444', '555555', '666666'].find(
    (code) => !right.includes(code),
  )!;
};

/** As if half a minute had passed since the last code of this person was used. */
export async function forgetSteps({ server, tenant, id }: Person): Promise<void> {
  await server.app.database.operatorPool.query(
    'update mfa_factors set last_step = 0 where tenant_id = $1 and identity_id = $2',
    [tenant, id],
  );
}

/** Enables MFA; answers its secret and backup codes. */
export async function enableMfa(person: Person): Promise<{ secret: string; codes: string[] }> {
  const setup = await person.call('POST', '/v1/auth/mfa/setup');
  if (setup.status !== 200) throw new Error(`setup answered ${setup.status}: ${setup.text}`);
  const { secret, backup_codes } = setup.body;
  const verified = await person.call('POST', '/v1/auth/mfa/verify', { token: codeOf(secret) });
  if (verified.status !== 200) throw new Error(`verify answered ${verified.status}: ${verified.text}`);
  await forgetSteps(person);
  return { secret, codes: backup_codes };
}

/** Types and data of the facts of a tenant, in order. */
export const factsOf = async ({ server, tenant }: Person) =>
  (
    await server.app.database.operatorPool.query<{ type: string; text: string }>(
      'select type, row_to_json(facts)::text as text from facts where tenant_id = $1 order by id',
      [tenant],
    )
  ).rows;

/** Mails to an address, the newest last, whichever server has sent them. */
export async function mailsTo(address: string) {
  const files: string[] = [];
  for (const folder of [...dataDirs].map((dir) => join(dir, 'outbox')))
    for (const file of await readdir(folder).catch(() => [])) files.push(join(folder, file));
  files.sort((a, b) => basename(a).localeCompare(basename(b)));
  const mails = await Promise.all(files.map(async (file) => simpleParser(await readFile(file))));
  return mails.filter(({ to }) => JSON.stringify(to).includes(address));
}

/** Asks for a reset and reads its token from the mail. */
export async function resetTokenOf(person: Person, email: string): Promise<string> {
  const before = (await mailsTo(email)).length;
  const asked = await callServer(person.server, 'POST', '/v1/auth/reset-password', { body: { email } });
  if (asked.status !== 200) throw new Error(`reset answered ${asked.status}: ${asked.text}`);
  const mail = await eventually('the mail', async () => (await mailsTo(email))[before]);
  return /rst_\S+/.exec(mail.text ?? '')![0];
}
