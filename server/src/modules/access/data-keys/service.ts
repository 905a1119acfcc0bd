import { createHash, randomBytes } from 'node:crypto';
import { createCache } from '#platform/cache.ts';
import type { App, Ctx } from '#platform/context.ts';
import { decrypt, encrypt, hmac } from '#platform/crypto.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { perApp } from '#platform/per-app.ts';
import {
  type DataKeyRow,
  deleteRetiredKey,
  insertKey,
  type KeyPurpose,
  listTenantsWithRetiredKeys,
  listWrappedOtherwise,
  retireKey,
  rewrapKey,
  selectKeys,
} from './store.ts';

/** The keys of a tenant, open. Made when something of it is sealed or hashed for the first time. */
export interface DataKeys {
  tenant: string;
  /** What seals now. */
  seals: { id: string; bytes: Buffer };
  /** What opens, by id; retired keys as well. */
  opens: ReadonlyMap<string, Buffer>;
  /** Makes keyed hashes. It never changes. */
  hashes: Buffer;
}

type Found = Omit<DataKeys, 'seals' | 'hashes'> & { seals?: DataKeys['seals']; hashes?: Buffer };

/** Who asks: `db` may be a transaction, and then nothing else is asked. */
export type Asking = Pick<Ctx, 'app' | 'tenant' | 'db'>;

const cacheOf = perApp((app) => createCache<Found>(app.shared, 'data_keys', 10_000));

const boundTo = (tenant: string, { id, purpose }: Pick<DataKeyRow, 'id' | 'purpose'>) =>
  `data key ${tenant} ${id} ${purpose}`;

/** Names the wrapping key without telling it. */
const wrapperOf = ({ keys }: App): string =>
  createHash('sha256').update('wraps data keys').update(keys.dataKeys.current).digest('hex').slice(0, 16);

function opened(app: App, tenant: string, rows: DataKeyRow[]): Found {
  const opens = new Map<string, Buffer>();
  const found: Found = { tenant, opens };
  for (const row of rows) {
    const bytes = decrypt(app.keys.dataKeys, row.wrapped, boundTo(tenant, row));
    if (row.purpose === 'hash') found.hashes = bytes;
    else opens.set(row.id, bytes);
    if (row.purpose === 'seal' && row.retired_at === null) found.seals = { id: row.id, bytes };
  }
  return found;
}

const load = async ({ app, tenant, db }: Asking): Promise<Found> =>
  opened(app, tenant, await db.rows(selectKeys(tenant)));

/** What is known of the tenant's keys. Inside a transaction only the transaction is asked, and what it says is not kept: it may be undone. */
function known(asking: Asking): Promise<Found> | Found {
  const { app, tenant, db } = asking;
  const cache = cacheOf(app);
  return (
    cache.peek(tenant) ??
    (db.inTransaction
      ? load(asking)
      : cache.get(tenant, () => load({ app, tenant, db: app.database.tenant(tenant) })))
  );
}

function madeKey(app: App, tenant: string, purpose: KeyPurpose) {
  const id = uuidv7();
  const wrapped = encrypt(app.keys.dataKeys, randomBytes(32), boundTo(tenant, { id, purpose }));
  return { id, purpose, wrapped, wrapped_by: wrapperOf(app) };
}

const keysChanged = ({ app, tenant, db }: Asking): void =>
  db.afterCommit(() => app.shared.invalidate('data_keys', tenant));

/** The keys of a tenant, made where there are none. */
export async function dataKeysOf(asking: Asking): Promise<DataKeys> {
  const found = await known(asking);
  if (found.seals && found.hashes) return found as DataKeys;
  const { app, tenant, db } = asking;
  const now = new Date();
  // Of two that make them at once the second waits for the first and takes what that made.
  const [, , { rows }] = await db.batch([
    insertKey(tenant, madeKey(app, tenant, 'seal'), now),
    insertKey(tenant, madeKey(app, tenant, 'hash'), now),
    selectKeys(tenant),
  ]);
  keysChanged(asking);
  return opened(app, tenant, rows) as DataKeys;
}

/** The keys as they are this moment, where it matters which one seals. */
export async function dataKeysNow(asking: Asking): Promise<DataKeys> {
  const found = await load(asking);
  return found.seals && found.hashes ? (found as DataKeys) : dataKeysOf(asking);
}

/** A keyed hash that says nothing without the tenant's key. `purpose` keeps hashes of different things apart. */
export const keyedHash = ({ hashes }: Pick<DataKeys, 'hashes'>, purpose: string, text: string): Buffer =>
  hmac(hashes, `${purpose}\n${text}`);

const idBytes = 16;
const idOf = (sealed: Buffer): string =>
  sealed.toString('hex', 0, idBytes).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

/** Something encrypted, and the key its row must refer to, so that the key is kept as long. */
export interface Sealed {
  key_id: string;
  sealed: Buffer;
}

/**
 * Encrypts with the key that seals now: its id, then nonce, tag and ciphertext.
 * @param context what it is and where it stands, without the tenant, which is always bound; it opens nowhere else
 */
export function seal({ tenant, seals }: DataKeys, plain: string | Buffer, context: string): Sealed {
  const sealed = encrypt(seals.bytes, plain, `${tenant}\n${context}`);
  return {
    key_id: seals.id,
    sealed: Buffer.concat([Buffer.from(seals.id.replaceAll('-', ''), 'hex'), sealed]),
  };
}

/** Opens what was sealed; each with the context it was sealed in. @throws Error when the key is gone or anything differs */
export async function unseal(
  asking: Asking,
  items: { sealed: Buffer; context: string }[],
): Promise<Buffer[]> {
  if (items.length === 0) return [];
  let { opens } = await known(asking);
  // A key that another process has made since.
  if (items.some(({ sealed }) => !opens.has(idOf(sealed)))) ({ opens } = await load(asking));
  return items.map(({ sealed, context }) => {
    const key = opens.get(idOf(sealed));
    if (!key) throw new Error(`the data key ${idOf(sealed)} is not there`);
    return decrypt(key, sealed.subarray(idBytes), `${asking.tenant}\n${context}`);
  });
}

/** A key as administrators see it. */
export type KeyShown = Pick<DataKeyRow, 'id' | 'purpose' | 'created_at' | 'retired_at'>;

export const listDataKeys = async ({ db, tenant }: Pick<Ctx, 'db' | 'tenant'>): Promise<KeyShown[]> =>
  (await db.rows(selectKeys(tenant))).map(({ id, purpose, created_at, retired_at }) => ({
    id,
    purpose,
    created_at,
    retired_at,
  }));

/** Makes the tenant a new sealing key. What the former one sealed is sealed anew by jobs that follow; then that one goes. */
export function rotateDataKey(ctx: Ctx): Promise<{ key_id: string; retired_key_id: string | null }> {
  return ctx.db.transaction(async (tx) => {
    const now = new Date();
    const key = madeKey(ctx.app, ctx.tenant, 'seal');
    const [retired, made] = await tx.batch([
      retireKey(ctx.tenant, now),
      insertKey(ctx.tenant, key, now),
      fact(ctx, { type: 'data_keys.rotated', resource_type: 'data_key', resource_id: key.id }),
    ]);
    tx.afterCommit(() => ctx.app.shared.invalidate('data_keys', ctx.tenant));
    if (made.rows.length > 0) return { key_id: key.id, retired_key_id: retired.rows[0]?.id ?? null };
    // Another rotation was quicker by a moment: its key is as new as this one would be.
    const { seals } = await load({ app: ctx.app, tenant: ctx.tenant, db: tx });
    return { key_id: seals!.id, retired_key_id: null };
  });
}

/** A key no longer seals for this long in any process: longer than a cache may be trusted without word. */
const fadedMs = 60_000;

const isReferred = (error: unknown) => (error as { code?: string }).code === '23503';

/** Removes the retired keys of a tenant that nothing refers to any more; answers how many are left. */
export async function dropRetiredKeys({ app, tenant, db }: Asking, now = Date.now()): Promise<number> {
  const retired = (await db.rows(selectKeys(tenant))).filter(({ retired_at }) => retired_at !== null);
  let left = retired.length;
  for (const { id } of retired) {
    try {
      const gone = await db.rows(deleteRetiredKey(tenant, id, new Date(now - fadedMs)));
      left -= gone.length;
    } catch (error) {
      if (!isReferred(error)) throw error;
    }
  }
  if (left < retired.length) keysChanged({ app, tenant, db });
  return left;
}

/** Tenants with retired keys that no process seals with any more. */
export const tenantsWithRetiredKeys = async (app: App): Promise<string[]> =>
  (await listTenantsWithRetiredKeys(app.database.operator, new Date(Date.now() - fadedMs))).map(
    ({ tenant_id }) => tenant_id,
  );

const batch = 500;

/** Wraps with ENCRYPTION_KEY the keys that ENCRYPTION_KEY_PREVIOUS wrapped; answers how many, and how many it could not open. */
export async function rewrapDataKeys(app: App): Promise<{ rewrapped: number; unopened: number }> {
  const { operator } = app.database;
  const wrapper = wrapperOf(app);
  const done = { rewrapped: 0, unopened: 0 };
  for (let after: [string, string] = ['', '00000000-0000-0000-0000-000000000000']; ; ) {
    const rows = await listWrappedOtherwise(operator, wrapper, after, batch);
    for (const { tenant_id, id, wrapped, purpose } of rows) {
      const context = boundTo(tenant_id, { id, purpose });
      try {
        const bytes = decrypt(app.keys.dataKeys, wrapped, context);
        await operator.run(rewrapKey(tenant_id, id, encrypt(app.keys.dataKeys, bytes, context), wrapper));
        done.rewrapped += 1;
      } catch (error) {
        app.log.error({ err: error, tenant_id, key_id: id }, 'a data key can not be opened');
        done.unopened += 1;
      }
    }
    const last = rows[batch - 1];
    if (!last) return done;
    after = [last.tenant_id, last.id];
  }
}
