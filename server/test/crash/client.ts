import { Pool } from 'undici';
import { count, type KeyEntry, type Ledger } from './ledger.ts';

/** Somebody with an admin's credential in a tenant. */
export interface Account {
  tenant: string;
  token: string;
}

/**
 * What became of a request. `lost`: it may have been done; `refused`: nobody listened, so it was not;
 * `busy`: its Idempotency-Key is being worked on.
 */
export type Outcome =
  | { is: 'answer'; status: number; body: any; replayed: boolean; cursor: string | undefined }
  | { is: 'lost' | 'refused' | 'busy' };

/** A body that is sent as a form, as it stands. */
export interface FormBody {
  payload: Buffer;
  headers: Record<string, string>;
}

const isForm = (body: unknown): body is FormBody => Buffer.isBuffer((body as FormBody | undefined)?.payload);

export interface Client {
  send(account: Account, method: string, path: string, body?: unknown, key?: string): Promise<Outcome>;
  /** Sends a request with a key and notes its answer; an answer that differs from an earlier one is a problem. */
  sendKeyed(account: Account, entry: KeyEntry): Promise<Outcome>;
  close(): Promise<void>;
}

/** An answer without the request id of its envelope, which is each request's own. */
const said = ({ status, body }: { status: number; body: any }): string =>
  JSON.stringify({ status, body: body?.meta ? body.data : body });

/** @param connections at once; each lost one is made anew */
export function createClient(address: string, connections: number, ledger: Ledger): Client {
  const pool = new Pool(address, { connections, headersTimeout: 30_000, bodyTimeout: 30_000 });

  const send: Client['send'] = async (account, method, path, body, key) => {
    try {
      const reply = await pool.request({
        method: method as 'GET',
        path,
        headers: {
          ...(account.token ? { authorization: `Bearer ${account.token}` } : {}),
          ...(isForm(body) ? body.headers : body === undefined ? {} : { 'content-type': 'application/json' }),
          ...(key === undefined ? {} : { 'idempotency-key': key }),
        },
        ...(isForm(body) ? { body: body.payload } : body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await reply.body.text();
      const parsed = text === '' ? undefined : JSON.parse(text);
      const { statusCode: status } = reply;
      count(ledger, `http_${status}`);
      if (status === 409 && parsed?.error?.code === 'IDEMPOTENCY_IN_PROGRESS') return { is: 'busy' };
      // The process is going away, or its database is: whether the work was done is not said.
      if (status === 503) return { is: 'lost' };
      if (status >= 500) {
        ledger.problems.push(`${method} ${path} answered ${status}: ${text.slice(0, 300)}`);
        return { is: 'lost' };
      }
      return {
        is: 'answer',
        status,
        body: parsed,
        replayed: reply.headers['idempotency-replayed'] === 'true',
        cursor: reply.headers['x-next-cursor'] as string | undefined,
      };
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === 'ECONNREFUSED') return { is: 'refused' };
      if (code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT')
        ledger.problems.push(`${method} ${path} got no answer in 30 s`);
      count(ledger, 'lost');
      return { is: 'lost' };
    }
  };

  return {
    send,
    sendKeyed: async (account, entry) => {
      const outcome = await send(account, entry.method, entry.path, entry.body, entry.key);
      if (outcome.is !== 'answer' || outcome.status >= 300) return outcome;
      const { status, body } = outcome;
      if (entry.answer && said(entry.answer) !== said({ status, body }))
        ledger.problems.push(
          `key ${entry.key} was answered ${said(entry.answer)} and ${said({ status, body })}`,
        );
      entry.answer ??= { status, body };
      return outcome;
    },
    close: () => pool.destroy(),
  };
}
