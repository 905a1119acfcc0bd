import type { Ctx, Permission, Target } from '#platform/context.ts';
import {
  type PageFrom,
  type PageQuery,
  type Place,
  type Position,
  page,
  placeOf,
} from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import type { RowColumns } from './attribute-store.ts';
import { isTotal, possiblyIn } from './condition-store.ts';
import { type View, viewOf } from './view.ts';

/** A list of rows that policy may narrow: how a page of it is read, and what policies see of a row. */
export interface Listing<Row> {
  /** In the order of the list, one row more than `limit` when there are more. `owner`: of this identity only. */
  rows: (from: PageFrom) => Promise<Row[]>;
  /** False for rows that can not be read by their owner; then each is decided. */
  owned: boolean;
  /** Where what policies see of a row is in the database; without it each row is decided. */
  columns?: RowColumns;
  target: (row: Row) => Target;
  /** What is done for rows that are shown. */
  open?: (rows: Row[]) => Promise<unknown[]>;
  position: (row: Row) => Position;
  /** Rows of a page when the caller does not say. */
  size: number;
}

/** Rows read at once where each has to be decided. */
const scanned = 500;

/** Rows decided one by one for one page; beyond it the page is answered as it is. */
const mostDecided = 5_000;
/** Where a page ends that is not full must not tell how many rows it left out. */
const decidedAtMost = (): number => Math.round(mostDecided * (1 + Math.random()));

/** Rows of a page, one more than `limit` when there are more; or where to go on when there was more to decide than is done at once. */
interface Found<Row> {
  rows: Row[];
  next?: Place;
}

/** Answers a page of what the caller may see: all of the tenant's rows, its own, or those that policy lets through. */
export async function visiblePage<Row>(
  ctx: Ctx,
  permission: Permission,
  filter: object,
  query: PageQuery,
  listing: Listing<Row>,
): Promise<Answer> {
  const limit = query.limit ?? listing.size;
  const { after, skip = 0 } = placeOf(ctx, permission, filter, query.cursor) ?? {};
  const from = { ...(after ? { after } : {}), skip: skip + (query.skip ?? 0), limit };
  const view = await viewOf(ctx, permission);
  const { rows, next } = await visibleRows(view, ctx.actor.identity_id, listing, from);
  const items = rows.slice(0, limit);
  const opened = listing.open && (await listing.open(items));
  const shown = new Map(items.map((row, i) => [row, opened ? opened[i] : row]));
  return page(ctx, permission, filter, rows, limit, listing.position, (row) => shown.get(row), next);
}

async function visibleRows<Row>(
  view: View,
  owner: string | undefined,
  listing: Listing<Row>,
  from: PageFrom,
): Promise<Found<Row>> {
  const { rows, owned, columns } = listing;
  if (view.rows === 'none') return { rows: [] };
  if (view.rows === 'all') return { rows: await rows(from) };
  const onlyOwn = view.onlyOwn && owned;
  if (onlyOwn && owner === undefined) return { rows: [] };
  const only = onlyOwn && owner !== undefined ? { owner } : {};
  if (view.rows === 'own' && owned) return { rows: await rows({ ...from, ...only }) };
  const condition = columns ? view.letThrough(columns) : null;
  if (condition === false) return { rows: [] };
  const visible = condition === null || condition === true ? {} : { visible: possiblyIn(condition) };
  return decidedRows(view, listing, { ...from, ...only, ...visible }, isTotal(condition));
}

/**
 * Reads and decides until the page is full, nothing is left, or it was enough work for one page.
 * @param asked whether the rows read are those that are let through; each is decided all the same, and so remembered
 */
async function decidedRows<Row>(
  view: View,
  { rows, target, position }: Listing<Row>,
  { skip, limit, after: first, ...from }: PageFrom,
  asked: boolean,
): Promise<Found<Row>> {
  const shown: Row[] = [];
  const most = decidedAtMost();
  const size = asked ? limit + 1 : scanned;
  let toSkip = asked ? 0 : skip;
  let decided = 0;
  for (let after = first; ; ) {
    const begin = after ? { after } : {};
    const read = await rows({ ...from, ...begin, skip: asked && decided === 0 ? skip : 0, limit: size });
    for (const row of read.slice(0, size)) {
      if (!view.sees(target(row))) continue;
      if (toSkip > 0) toSkip -= 1;
      else shown.push(row);
      if (shown.length > limit) return { rows: shown };
    }
    const last = read[size - 1];
    if (read.length <= size || !last) return { rows: shown };
    after = position(last);
    decided += size;
    if (decided >= most) return { rows: shown, next: { after, skip: toSkip } };
  }
}
