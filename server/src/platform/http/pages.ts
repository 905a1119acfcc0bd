import { Type as T } from 'typebox';
import type { Ctx } from '../context.ts';
import { decrypt, encrypt } from '../crypto.ts';
import type { Statement } from '../db/sql.ts';
import { badRequest } from '../errors.ts';
import { canonicalJson } from './json.ts';
import { Answer } from './route.ts';

/** Where a list goes on: values of the sort columns of the last row shown. */
export type Position = (string | number)[];

/** Which rows of a list a query of the database answers: those after a position, of one owner where it is given. */
export interface PageFrom {
  owner?: string;
  after?: Position;
  /** Only rows for which this is true. */
  visible?: Statement;
  skip: number;
  limit: number;
}

/** What a caller says about the page it wants. */
export interface PageQuery {
  limit?: number;
  skip?: number;
  cursor?: string;
}

/** Query fields of a list, by family. */
export const pageQuery = (initial: number, maximum: number) => ({
  limit: T.Optional(T.Integer({ minimum: 1, maximum, default: initial })),
  cursor: T.Optional(T.String({ maxLength: 1_000 })),
  skip: T.Optional(
    T.Integer({ minimum: 0, maximum: 100_000, description: 'Rows to leave out; prefer cursor' }),
  ),
});

/** Where a page begins: after a row, and how many of those that may be seen are left out from there on. */
export interface Place {
  after: Position;
  skip?: number;
}

/** What a cursor is good for. */
const boundTo = (ctx: Ctx, list: string, filters: object): string =>
  [ctx.tenant, ctx.actor.identity_id ?? '', list, canonicalJson(filters)].join('\n');

/** A cursor that only works for the same tenant, caller, list and filters. It is sealed: the row it names may be a hidden one. */
export const cursorOf = (ctx: Ctx, list: string, filters: object, place: Place): string =>
  encrypt(ctx.app.keys.cursor, JSON.stringify(place), boundTo(ctx, list, filters)).toString('base64url');

/** @throws ApiError 400 INVALID_CURSOR on any change to it, or when it belongs to another list */
export function placeOf(
  ctx: Ctx,
  list: string,
  filters: object,
  cursor: string | undefined,
): Place | undefined {
  if (cursor === undefined) return undefined;
  const sealed = Buffer.from(cursor, 'base64url');
  try {
    if (sealed.toString('base64url') !== cursor) throw new Error('written in another way');
    return JSON.parse(decrypt(ctx.app.keys.cursor, sealed, boundTo(ctx, list, filters)).toString());
  } catch {
    throw badRequest('INVALID_CURSOR', 'The cursor is not one this list gave out. Start again without it.');
  }
}

/** The same, of a list that leaves nothing out. */
export const positionOf = (
  ctx: Ctx,
  list: string,
  filters: object,
  cursor: string | undefined,
): Position | undefined => placeOf(ctx, list, filters, cursor)?.after;

/**
 * Answers a page as a bare array; when there is more, `Link: rel="next"` and `X-Next-Cursor` say how to go on.
 * @param rows one more than `limit`, when there is more
 * @param place where there may be more although the page is not full
 */
export function page<Row>(
  ctx: Ctx,
  list: string,
  filters: object,
  rows: Row[],
  limit: number,
  position: (row: Row) => Position,
  shown: (row: Row) => unknown = (row) => row,
  place?: Place,
): Answer {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  const next = rows.length > limit && last !== undefined ? { after: position(last) } : place;
  if (next === undefined) return new Answer(200, items.map(shown));
  const cursor = cursorOf(ctx, list, filters, next);
  const following = new URLSearchParams({ ...stringsOf(filters), limit: String(limit), cursor });
  return new Answer(200, items.map(shown), {
    link: `<${ctx.request?.path ?? ''}?${following}>; rel="next"`,
    'x-next-cursor': cursor,
  });
}

const stringsOf = (filters: object): Record<string, string> =>
  Object.fromEntries(
    Object.entries(filters)
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => [name, String(value)]),
  );
