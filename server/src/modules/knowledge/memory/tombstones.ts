import { createCache } from '#platform/cache.ts';
import type { Ctx } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { conflict } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { perApp } from '#platform/per-app.ts';
import { authorize } from '#platform/permission.ts';
import { type Asking, type DataKeys, dataKeysOf, keyedHash } from '../../access/data-keys/service.ts';
import { deleteTombstone, findTombstones, hasTombstones, type Tombstone } from './tombstone-store.ts';

// Few tenants ever erase anything, and only they pay for the question. Another process may learn a moment late that a
// tenant's first tombstone was set; what was learned in that moment is swept by the erasure itself (see `erasure.ts`).
const cacheOf = perApp((app) => createCache<boolean>(app.shared, 'memory_tombstones', 50_000));

/** Text as far as it says the same: without case, runs of spaces, forms of letters, and the last full stop. */
export const normalised = (text: string): string =>
  text
    .normalize('NFKC')
    .toLowerCase()
    .replace(/\s+/g, ' ')
    .trim()
    .replace(/(?<=[^.!?。！？])[.!?。！？]+$/u, '');

/** What somebody must not learn again, as a hash that only the tenant's own key can make. */
export const tombstoneOf = (keys: DataKeys, identity_id: string, text: string): Tombstone => ({
  identity_id,
  hash: keyedHash(keys, `memory tombstone ${identity_id}`, normalised(text)),
});

/** Tells all processes that a tenant has tombstones, once it has. */
export const tombstonesChanged = ({ app, tenant, db }: Asking): void =>
  db.afterCommit(() => app.shared.invalidate('memory_tombstones', tenant));

async function mayHaveTombstones({ app, tenant, db }: Asking): Promise<boolean> {
  const cache = cacheOf(app);
  return (
    cache.peek(tenant) ??
    (db.inTransaction
      ? hasTombstones(db)
      : cache.get(tenant, () => hasTombstones(app.database.tenant(tenant))))
  );
}

/**
 * Which of these texts were erased, by their place in the list.
 * @param surely asks the database, whatever was known a moment ago
 */
export async function erasedAmong(
  asking: Asking,
  texts: { identity_id: string; text: string }[],
  surely = false,
): Promise<Set<number>> {
  if (texts.length === 0) return new Set();
  if (!(await (surely ? hasTombstones(asking.db) : mayHaveTombstones(asking)))) return new Set();
  const keys = await dataKeysOf(asking);
  const wanted = texts.map(({ identity_id, text }) => tombstoneOf(keys, identity_id, text));
  const nameOf = ({ identity_id, hash }: Tombstone) => `${identity_id} ${hash.toString('hex')}`;
  const identities = [...new Set(wanted.map(({ identity_id }) => identity_id))];
  const found = new Set(
    (
      await findTombstones(
        asking.db,
        identities,
        wanted.map(({ hash }) => hash),
      )
    ).map(nameOf),
  );
  return new Set(wanted.flatMap((stone, i) => (found.has(nameOf(stone)) ? [i] : [])));
}

export const erasedMessage =
  'This was erased and is not to be learned again. An admin can say relearn: true.';

/** @throws ApiError 409 MEMORY_ERASED when one of the texts was erased */
export async function refuseErased(
  asking: Asking,
  texts: { identity_id: string; text: string }[],
): Promise<void> {
  if ((await erasedAmong(asking, texts)).size > 0) throw conflict('MEMORY_ERASED', erasedMessage);
}

/**
 * What lets a text be learned again: the statements that take its tombstone away, with their fact.
 * @throws ApiError 403 for who is no admin
 */
export async function relearning(
  ctx: Ctx,
  { id, identity_id, text }: { id: string; identity_id: string; text: string },
): Promise<Statement[]> {
  await authorize(ctx, 'admin:update');
  if ((await erasedAmong(ctx, [{ identity_id, text }])).size === 0) return [];
  return [
    deleteTombstone(ctx.tenant, tombstoneOf(await dataKeysOf(ctx), identity_id, text)),
    fact(ctx, {
      type: 'memory.relearned',
      resource_type: 'memory',
      resource_id: id,
      data: { identity_id },
    }),
  ];
}
