import type { FastifyRequest } from 'fastify';
import type { App, Ctx } from '#platform/context.ts';
import { systemCtx } from '#platform/context.ts';
import { ApiError, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { Answer } from '#platform/http/route.ts';
import { isUuid, uuidv7 } from '#platform/ids.ts';
import { isPermitted } from '#platform/permission.ts';
import { deleteAudio, findAudio, listOldAudio, listTenantsWithOldAudio } from './audio-store.ts';

/** Name of the file of a spoken answer. */
export const blobOf = (tenant: string, id: string): string => `audio/${tenant}/${id}.mp3`;

/**
 * A spoken answer, to whoever may read its run; whole, or the one range that is asked for (RFC 9110, section 14).
 * @throws ApiError 404, 416 RANGE_NOT_SATISFIABLE
 */
export async function getAudio(ctx: Ctx, id: string, { headers }: FastifyRequest): Promise<Answer> {
  const audio = isUuid(id) ? await findAudio(ctx.db, id, new Date()) : undefined;
  const target = audio && { id: audio.run_id, owner: audio.identity_id };
  if (!audio || !(await isPermitted(ctx, 'runs:read', target))) throw notFound('Audio');
  const name = blobOf(ctx.tenant, audio.id);
  const size = await ctx.app.blobs.size(name);
  // It was written on another machine, or somebody took it away: what is not whole is not there.
  if (size !== audio.bytes) throw notFound('Audio');
  const etag = `"${audio.id}"`;
  const { range, 'if-range': only } = headers;
  const part = range !== undefined && (only === undefined || only === etag) ? rangeOf(range, size) : 'whole';
  if (part === 'none') {
    throw new ApiError(
      416,
      'RANGE_NOT_SATISFIABLE',
      'The audio has no such bytes. Ask for others, or leave Range out.',
      undefined,
      { 'content-range': `bytes */${size}` },
    );
  }
  const { start, end } = part === 'whole' ? { start: 0, end: size - 1 } : part;
  return new Answer(part === 'whole' ? 200 : 206, await ctx.app.blobs.read(name, start, end), {
    'content-type': audio.mime,
    'content-length': String(end - start + 1),
    'accept-ranges': 'bytes',
    'cache-control': 'private, max-age=3600',
    etag,
    ...(part === 'whole' ? {} : { 'content-range': `bytes ${start}-${end}/${size}` }),
  });
}

/** One range of bytes. What is not understood, and several at once, count as not asked for. */
function rangeOf(header: string, size: number): { start: number; end: number } | 'whole' | 'none' {
  const [, from, to] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim()) ?? [];
  if (from === undefined || to === undefined || (from === '' && to === '')) return 'whole';
  if (from === '') {
    const length = Math.min(Number(to), size);
    return length === 0 ? 'none' : { start: size - length, end: size - 1 };
  }
  const start = Number(from);
  const end = to === '' ? size - 1 : Math.min(Number(to), size - 1);
  if (to !== '' && Number(to) < start) return 'whole';
  return start >= size ? 'none' : { start, end };
}

/** Removes all spoken answers of a tenant. Their rows are for whoever removes the tenant. */
export const removeAudioOf = (app: App, tenant: string): Promise<void> =>
  app.blobs.removeAll(`audio/${tenant}`);

const batch = 200;

/** Removes spoken answers past their time, those of deleted runs, and what dead processes left half written. */
export async function removeOldAudio(app: App): Promise<void> {
  const now = new Date();
  for (const { tenant_id } of await listTenantsWithOldAudio(app.database.operator, now)) {
    await removeOldAudioOf(systemCtx(app, tenant_id, uuidv7()), now);
  }
}

export async function removeOldAudioOf(ctx: Ctx, now: Date): Promise<void> {
  const { app, tenant } = ctx;
  for (let count = batch; count === batch; ) {
    const old = (await listOldAudio(ctx.db, now, batch)).map(({ id }) => id);
    count = old.length;
    // The rows go last: killed in between, the files are looked for again.
    for (const id of old) await app.blobs.remove(blobOf(tenant, id));
    if (count === 0) break;
    await ctx.db.batch([
      deleteAudio(tenant, old),
      fact(ctx, {
        type: 'run.audio_removed',
        resource_type: 'run_audio',
        data: { audio_ids: old, deleted_count: count },
      }),
    ]);
  }
}
