import { Type as T } from 'typebox';
import type { Ctx } from '../context.ts';
import { hmac, sameBytes } from '../crypto.ts';
import { badRequest } from '../errors.ts';
import { canonicalJson } from './json.ts';
import { Answer } from './route.ts';

/** Where a list goes on: values of the sort columns of the last row shown. */
export type Position = (string | number)[];

/** Which rows of a list a query of the database answers: those after a position, of one owner where it is given. */
export interface PageFrom {
  owner?: string;
  after?: Position;
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

const mac = (ctx: Ctx, scope: string, payload: string) =>
  hmac(ctx.app.keys.cursor, `${ctx.tenant}\n${ctx.actor.identity_id ?? ''}\n${scope}\n${payload}`).subarray(
    0,
    16,
  );

const scopeOf = (list: string, filters: object) => `${list}\n${canonicalJson(filters)}`;

/** A cursor that only works for the same tenant, caller, list and filters. */
export function cursorOf(ctx: Ctx, list: string, filters: object, position: Position): string {
  const payload = Buffer.from(JSON.stringify(position)).toString('base64url');
  return `${payload}.${mac(ctx, scopeOf(list, filters), payload).toString('base64url')}`;
}

/** @throws ApiError 400 INVALID_CURSOR on any change to it, or when it belongs to another list */
export function positionOf(
  ctx: Ctx,
  list: string,
  filters: object,
  cursor: string | undefined,
): Position | undefined {
  if (cursor === undefined) return undefined;
  const [payload, signature, ...rest] = cursor.split('.');
  const given = Buffer.from(signature ?? '', 'base64url');
  if (
    !payload ||
    rest.length ||
    !sameBytes(given, mac(ctx, scopeOf(list, filters), payload)) ||
    given.toString('base64url') !== signature
  ) {
    throw badRequest('INVALID_CURSOR', 'The cursor is not one this list gave out. Start again without it.');
  }
  return JSON.parse(Buffer.from(payload, 'base64url').toString());
}

/**
 * Answers a page as a bare array; when there is more, `Link: rel="next"` and `X-Next-Cursor` say how to go on.
 * @param rows one more than `limit`, when there is more
 */
export function page<Row>(
  ctx: Ctx,
  list: string,
  filters: object,
  rows: Row[],
  limit: number,
  position: (row: Row) => Position,
  shown: (row: Row) => unknown = (row) => row,
): Answer {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  if (rows.length <= limit || last === undefined) return new Answer(200, items.map(shown));
  const cursor = cursorOf(ctx, list, filters, position(last));
  const next = new URLSearchParams({ ...stringsOf(filters), limit: String(limit), cursor });
  return new Answer(200, items.map(shown), {
    link: `<${ctx.request?.path ?? ''}?${next}>; rel="next"`,
    'x-next-cursor': cursor,
  });
}

const stringsOf = (filters: object): Record<string, string> =>
  Object.fromEntries(
    Object.entries(filters)
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => [name, String(value)]),
  );
