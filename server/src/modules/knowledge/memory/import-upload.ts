import type { Readable } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import type { Actor, Ctx } from '#platform/context.ts';
import { badRequest, conflict, forbidden, notFound, unsupportedMediaType } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { idempotencyKeyOf, inProgress } from '#platform/http/idempotency.ts';
import { tooLarge } from '#platform/http/json.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { authorize, isPermitted } from '#platform/permission.ts';
import { dataKeysOf, seal } from '../../access/data-keys/service.ts';
import { visiblePage } from '../../access/policy/service.ts';
import type { ImportOptions, MemoryImport } from './import-schema.ts';
import {
  deleteChunks,
  endImport,
  endUpload,
  findImport,
  findImportByKey,
  type ImportRow,
  insertChunk,
  insertImport,
  listImports,
  moveUpload,
} from './import-store.ts';

/** Bytes of a stored piece: whole lines, and little enough that one is worked on in a moment. */
const chunkBytes = 262_144;
/** Lines of a stored piece, where they are short. */
const chunkLines = 1_000;

/** What stands for a line that was too long to be kept; no JSON begins so. */
export const tooLongMark = '!line too long';

export const boundTo = (id: string, position: number) => `memory import ${id} ${position}`;

export const shownImport = ({
  id,
  identity_id: _i,
  actor: _a,
  options: _o,
  upload_key: _u,
  chunk_count: _c,
  next_chunk: _n,
  request_id: _r,
  ...row
}: ImportRow): MemoryImport => ({
  import_id: id,
  status_url: `/v1/memory/imports/${id}`,
  ...row,
  blank: row.processed - row.created - row.updated - row.unchanged - row.failed,
});

/**
 * Takes a file of memories, one line of JSON each, and has a job store them. The file is kept piece by piece as it comes:
 * when the connection breaks, `continueUpload` goes on where it was. An Idempotency-Key names the upload: sent again it
 * answers with the same import.
 * @throws ApiError 403, 409 IMPORT_UPLOADING (under this key), 413, 415, 429
 */
export async function startImport(
  ctx: Ctx,
  { complete = true, owner = 'self', preserve_ids = false }: ImportOptions,
  request: FastifyRequest,
): Promise<Answer> {
  const body = streamOf(request);
  const upload_key = idempotencyKeyOf(request) ?? null;
  checkSize(ctx, request, 0);
  if (preserve_ids) await authorize(ctx, 'admin:create');
  const row = {
    id: uuidv7(),
    identity_id: ctx.actor.identity_id!,
    actor: ctx.actor,
    options: { owner, preserve_ids },
    upload_key,
    request_id: ctx.requestId,
    created_at: new Date().toISOString(),
  };
  const made = await ctx.db.rows(insertImport(ctx.tenant, row));
  if (made.length === 0) return earlierUpload(ctx, upload_key!);
  const state = (await findImport(ctx.db, row.id))!;
  return new Answer(202, await receive(ctx, state, body, complete, request));
}

/** @throws ApiError 413 when a body that says its size would make the file too large */
function checkSize(ctx: Ctx, request: FastifyRequest, received: number): number {
  const most = ctx.app.config.IMPORT_LIMIT_BYTES;
  if (received + Number(request.headers['content-length'] ?? 0) > most) throw tooLarge(most);
  return most;
}

async function earlierUpload(ctx: Ctx, key: string): Promise<Answer> {
  const earlier = await findImportByKey(ctx.db, ctx.actor.identity_id!, key);
  if (!earlier) throw inProgress('An upload with this Idempotency-Key just began.');
  const shown = shownImport(earlier);
  if (earlier.status !== 'uploading') return new Answer(202, shown, { 'idempotency-replayed': 'true' });
  throw conflict(
    'IMPORT_UPLOADING',
    'An upload with this Idempotency-Key is not complete. Go on with it by PUT to its status_url.',
    { import_id: earlier.id, status_url: shown.status_url, received_bytes: earlier.received_bytes },
  );
}

const streamOf = (request: FastifyRequest): Readable | undefined => {
  const type = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
  if (type === 'application/x-ndjson') return request.body as Readable;
  if (request.headers['content-length'] && request.headers['content-length'] !== '0')
    throw unsupportedMediaType('application/x-ndjson');
  return undefined;
};

/**
 * Goes on with an upload.
 * @param offset how much of the file was sent before: must be what was received
 * @throws ApiError 403, 404, 409 IMPORT_OFFSET_MISMATCH, IMPORT_NOT_UPLOADING, 413, 415
 */
export async function continueUpload(
  ctx: Ctx,
  id: string,
  { offset, complete = true }: { offset?: number; complete?: boolean },
  request: FastifyRequest,
): Promise<MemoryImport> {
  const row = await ownImport(ctx, id, 'memory:create');
  requireUnboundOrSame(ctx.actor, row.actor);
  const body = streamOf(request);
  if (row.status !== 'uploading')
    throw conflict('IMPORT_NOT_UPLOADING', `The file is complete; the import is ${row.status}.`);
  if ((offset ?? row.received_bytes) !== row.received_bytes) throw mismatch(row);
  return receive(ctx, row, body, complete, request);
}

/**
 * A file is imported with the rights of whoever began to send it: what is bound by scopes, or acts for somebody, must not use
 * those of another credential.
 * @throws ApiError 403
 */
function requireUnboundOrSame({ credential, delegation, scopes }: Actor, began: Actor): void {
  if (credential === began.credential || (!delegation && !scopes?.length)) return;
  throw forbidden('AUTH_FORBIDDEN', 'This credential may only go on with uploads that it began itself.');
}

const mismatch = ({ received_bytes }: Pick<ImportRow, 'received_bytes'>) =>
  conflict('IMPORT_OFFSET_MISMATCH', 'Go on from where the upload is: received_bytes.', { received_bytes });

/** Keeps a stream in pieces of whole lines, each committed before more is read. */
async function receive(
  ctx: Ctx,
  row: ImportRow,
  body: Readable | undefined,
  complete: boolean,
  request: FastifyRequest,
): Promise<MemoryImport> {
  const most = checkSize(ctx, request, row.received_bytes);
  const state = { ...row };
  const lines = createLines(ctx.app.config.IMPORT_LINE_LIMIT_BYTES);
  const keep = async (isLast: boolean) => {
    const piece = lines.take(isLast);
    if (piece.bytes > 0) await keepPiece(ctx, state, piece);
  };
  for await (const bytes of whatComes(body)) {
    if (bytes === undefined) {
      await keep(false);
      throw badRequest('UPLOAD_INCOMPLETE', 'The upload was broken off. Go on from received_bytes.');
    }
    lines.add(bytes);
    if (state.received_bytes + lines.pending() > most) {
      await giveUp(ctx, state.id, 'PAYLOAD_TOO_LARGE');
      throw tooLarge(most);
    }
    if (lines.isFull()) await keep(false);
  }
  // What follows a last line feed belongs to a line whose rest is still to come, unless the file ends here.
  await keep(complete);
  if (complete) await finishUpload(ctx, state);
  return shownImport((await findImport(ctx.db, row.id))!);
}

/** The bytes of a body; undefined when it broke off. */
async function* whatComes(body: Readable | undefined): AsyncGenerator<Buffer | undefined> {
  try {
    for await (const bytes of body ?? []) yield bytes as Buffer;
  } catch {
    yield undefined;
  }
}

interface Piece {
  text: Buffer;
  lines: number;
  /** Bytes of the file it stands for. */
  bytes: number;
}

/** Cuts a stream of bytes into pieces of whole lines; what is too long for a line is left out, and marked. */
export function createLines(longest: number) {
  let parts: Buffer[] = [];
  let bytes = 0;
  let whole = 0;
  let count = 0;
  /** Of the line under way: the bytes kept, and whether the rest of it is dropped. */
  let open: Buffer[] = [];
  let openBytes = 0;
  let dropping = false;
  const close = () => {
    parts.push(dropping ? Buffer.from(tooLongMark) : Buffer.concat(open), lineFeed);
    count += 1;
    open = [];
    openBytes = 0;
    dropping = false;
    whole = bytes;
  };
  return {
    add: (chunk: Buffer) => {
      let from = 0;
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
        grow(chunk.subarray(from, at));
        bytes += at - from + 1;
        close();
        from = at + 1;
      }
      grow(chunk.subarray(from));
      bytes += chunk.length - from;
    },
    pending: () => bytes,
    isFull: () => whole >= chunkBytes || count >= chunkLines,
    take: (isLast: boolean): Piece => {
      if (isLast && bytes > whole) close();
      const piece = { text: Buffer.concat(parts), lines: count, bytes: whole };
      parts = [];
      bytes -= whole;
      whole = 0;
      count = 0;
      return piece;
    },
  };
  function grow(part: Buffer) {
    if (dropping || part.length === 0) return;
    openBytes += part.length;
    if (openBytes > longest) {
      dropping = true;
      open = [];
    } else open.push(part);
  }
}

const lineFeed = Buffer.from('\n');

async function keepPiece(ctx: Ctx, state: ImportRow, piece: Piece): Promise<void> {
  // Asked for each piece: an upload may outlive a key.
  const keys = await dataKeysOf(ctx);
  const to = {
    received_bytes: state.received_bytes + piece.bytes,
    received_lines: state.received_lines + piece.lines,
    chunk_count: state.chunk_count + 1,
    now: new Date(),
  };
  await ctx.db.transaction(async (tx) => {
    const moved = await tx.rows(moveUpload(ctx.tenant, state.id, state.received_bytes, to));
    if (moved.length === 0) throw mismatch((await findImport(tx, state.id)) ?? state);
    await tx.run(
      insertChunk(ctx.tenant, state.id, {
        position: state.chunk_count,
        first_line: state.received_lines + 1,
        lines: piece.lines,
        ...seal(keys, piece.text, boundTo(state.id, state.chunk_count)),
      }),
    );
  });
  Object.assign(state, to);
}

async function finishUpload(ctx: Ctx, state: ImportRow): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    const ended = await tx.rows(endUpload(ctx.tenant, state.id, state.received_bytes, new Date()));
    if (ended.length === 0) throw mismatch((await findImport(tx, state.id)) ?? state);
    await tx.run(
      fact(ctx, {
        id: state.id,
        type: 'memory.import_received',
        resource_type: 'memory_import',
        resource_id: state.id,
        data: { received_bytes: state.received_bytes, received_lines: state.received_lines },
      }),
    );
  });
}

async function ownImport(
  ctx: Ctx,
  id: string,
  permission: 'memory:read' | 'memory:create',
): Promise<ImportRow> {
  const row = isUuid(id) ? await findImport(ctx.db, id) : undefined;
  if (!row || !(await isPermitted(ctx, permission, { id: row.id, owner: row.identity_id })))
    throw notFound('Import');
  return row;
}

/** @throws ApiError 404 also for that of somebody else */
export const getImport = async (ctx: Ctx, id: string): Promise<MemoryImport> =>
  shownImport(await ownImport(ctx, id, 'memory:read'));

/** Imports the caller may see, newest first. */
export const listVisibleImports = (
  ctx: Ctx,
  { status, ...query }: PageQuery & { status?: string },
): Promise<Answer> =>
  visiblePage(ctx, 'memory:list', { imports: true, status }, query, {
    rows: (from) => listImports(ctx.db, status, from),
    owned: true,
    target: ({ id, identity_id }) => ({ id, owner: identity_id }),
    position: ({ id }) => [id],
    size: 100,
  }).then(
    (answer) => new Answer(answer.status, (answer.body as ImportRow[]).map(shownImport), answer.headers),
  );

/** Ends an import that can not go on; what it stored stays. */
export async function giveUp(ctx: Ctx, id: string, code: string): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    if ((await tx.rows(endImport(ctx.tenant, id, 'failed', code, new Date()))).length === 0) return;
    await tx.batch([
      deleteChunks(ctx.tenant, id),
      fact(ctx, {
        type: 'memory.import_failed',
        resource_type: 'memory_import',
        resource_id: id,
        outcome: 'failure',
        data: { code },
      }),
    ]);
  });
}

/** Stops an import and drops its file; what it stored stays. An import that has ended stays as it is. */
export async function cancelImport(ctx: Ctx, id: string): Promise<MemoryImport> {
  const row = await ownImport(ctx, id, 'memory:create');
  await ctx.db.transaction(async (tx) => {
    if ((await tx.rows(endImport(ctx.tenant, row.id, 'canceled', null, new Date()))).length === 0) return;
    await tx.batch([
      deleteChunks(ctx.tenant, row.id),
      fact(ctx, { type: 'memory.import_canceled', resource_type: 'memory_import', resource_id: row.id }),
    ]);
  });
  return getImport(ctx, row.id);
}
