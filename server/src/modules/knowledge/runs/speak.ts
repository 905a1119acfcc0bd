import type { Ctx } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { uuidv7 } from '#platform/ids.ts';
import { SpeechError, type SpeechModel } from '#platform/models/speech.ts';
import { blobOf } from './audio.ts';
import { deleteAudio, finishAudio, insertAudio } from './audio-store.ts';
import type { RunEvent } from './events.ts';
import { RunFailure } from './failures.ts';
import type { NewRun } from './store.ts';

const bytesMost = 64 * 1024 * 1024;
/** A row whose file is not finished by then belongs to a process that is gone. */
const unfinishedMs = 3_600_000;
const dayMs = 86_400_000;

/** How speaking an answer went: what is said of it, and what is written with that. */
export interface Spoken {
  event: RunEvent;
  statements: Statement[];
  /** For the fact. */
  about: Record<string, unknown>;
}

/** Speaks an answer into a file of the tenant's. Never throws: an answer that can not be spoken is an answer. */
export async function speakAnswer(ctx: Ctx, run: NewRun, text: string, cancel: AbortSignal): Promise<Spoken> {
  const { app } = ctx;
  const id = uuidv7();
  try {
    const model = app.models.speech;
    if (!model) throw new SpeechError('TTS_CONFIG_MISSING');
    const { pieces, isWhole } = spokenPieces(text, model.maxChars, app.config.TTS_MAX_CHARS);
    const now = new Date();
    await ctx.db.run(insertAudio(run, id, model.mime, now, new Date(now.getTime() + unfinishedMs)));
    const late = AbortSignal.timeout(app.config.TTS_TIMEOUT_MS);
    const bytes = await speakInto(ctx, id, model, pieces, AbortSignal.any([cancel, late]), late);
    const ready = new Date();
    const expires = new Date(ready.getTime() + app.config.AUDIO_TTL_DAYS * dayMs);
    return {
      event: {
        type: 'audio.ready',
        data: {
          audio_url: `${app.config.audioUrl}/audio/${id}.mp3`,
          audio_id: id,
          mime: model.mime,
          ...(isWhole ? {} : { truncated: true }),
        },
      },
      statements: [finishAudio(ctx.tenant, id, bytes, ready, expires)],
      about: { audio_id: id, audio_bytes: bytes },
    };
  } catch (error) {
    const { code, message } = cancel.aborted ? failureOfSpeech(cancel.reason) : failureOfSpeech(error);
    ctx.log.warn({ err: error, run_id: run.id, code }, 'an answer was not spoken');
    // Nothing was written under this name, or nothing whole.
    return {
      event: { type: 'audio.error', data: { code, message } },
      statements: [deleteAudio(ctx.tenant, [id])],
      about: { audio_error_code: code },
    };
  }
}

async function speakInto(
  ctx: Ctx,
  id: string,
  model: SpeechModel,
  pieces: string[],
  signal: AbortSignal,
  late: AbortSignal,
): Promise<number> {
  const name = blobOf(ctx.tenant, id);
  async function* bytes() {
    for (const piece of pieces) yield* model.speak(piece, signal);
  }
  try {
    const size = await ctx.app.blobs.write(name, bytes(), bytesMost);
    if (size > 0) return size;
    await ctx.app.blobs.remove(name);
    throw new SpeechError('TTS_ERROR', { cause: new Error('the speech is empty') });
  } catch (error) {
    throw late.aborted ? new SpeechError('INTEGRATION_UNAVAILABLE', { cause: error }) : error;
  }
}

function failureOfSpeech(error: unknown): { code: string; message: string } {
  return error instanceof SpeechError || error instanceof RunFailure ? error : new SpeechError('TTS_ERROR');
}

/**
 * An answer as it is spoken: without citation marks and the marks of Markdown, in pieces of at most `size` characters
 * that end with a sentence where one ends, `most` characters in all.
 */
export function spokenPieces(
  text: string,
  size: number,
  most: number,
): { pieces: string[]; isWhole: boolean } {
  const plain = text
    .replace(/ ?\[\d{1,4}\]/g, '')
    .replace(/^```.*$/gm, '')
    .replace(/^[ \t]{0,3}(?:#{1,6}|[-*+]|\d{1,9}[.)]|>)[ \t]+/gm, '')
    .replace(/\[([^\]\n]{1,500})\]\([^)\s]{1,2000}\)/g, '$1')
    .replace(/(\*\*|__|`)/g, '')
    .replace(/\n{3,}/g, '\n\n')
    .trim();
  const isWhole = plain.length <= most;
  let rest = isWhole ? plain : cut(plain, most);
  const pieces: string[] = [];
  while (rest !== '') {
    const piece = rest.length <= size ? rest : cut(rest, size);
    if (piece.trim() !== '') pieces.push(piece.trim());
    rest = rest.slice(piece.length);
  }
  return { pieces, isWhole };
}

/** The beginning of a longer text: to the end of a sentence, of a word, or where it has to be. */
function cut(text: string, most: number): string {
  const begin = text.slice(0, most);
  const sentence = Math.max(
    ...['. ', '! ', '? ', '.\n', '\n\n', '。', '！', '？'].map((end) => begin.lastIndexOf(end) + 1),
  );
  if (sentence > most / 2) return begin.slice(0, sentence);
  const space = begin.lastIndexOf(' ') + 1;
  return (space > most / 2 ? begin.slice(0, space) : begin).replace(/[\uD800-\uDBFF]$/, '');
}
