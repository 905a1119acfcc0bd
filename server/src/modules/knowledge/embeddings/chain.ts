import type { Ctx } from '#platform/context.ts';
import type { EmbeddingLink, EmbeddingModel } from '#platform/models/embeddings.ts';
import { failureOf, ModelError } from '#platform/models/model-error.ts';
import { noteFailing, noteWorking } from './links.ts';

/** Of one text: its vector; that the model does not take it; or nothing, because the model could not be asked. */
export type Outcome = Float32Array | 'refused' | undefined;

/** The model of a link, or undefined when it can not be opened now. */
export async function openLink(ctx: Ctx, link: EmbeddingLink): Promise<EmbeddingModel | undefined> {
  try {
    return await link.open();
  } catch (error) {
    if (ctx.signal.aborted) throw error;
    tellFailing(ctx, link, error);
    return undefined;
  }
}

/**
 * Embeds texts with one model, several calls at once. What one call's failure leaves undone is left to the next link;
 * a text that is refused is found by halving and leaves the others alone.
 */
export async function embedWith(ctx: Ctx, link: EmbeddingLink, texts: string[]): Promise<Outcome[]> {
  const outcomes = new Array<Outcome>(texts.length).fill(undefined);
  const model = await openLink(ctx, link);
  if (!model) return outcomes;
  const calls = callsOf(texts, model.limits);
  let next = 0;
  let broken = false;
  let probed: Promise<unknown> | undefined;

  const attempt = async (from: number, to: number): Promise<void> => {
    try {
      const vectors = await model.embed(texts.slice(from, to), ctx.signal);
      vectors.forEach((vector, i) => {
        outcomes[from + i] = vector;
      });
    } catch (error) {
      if (failureOf(error) !== 'refused') throw error;
      // A server that refuses whatever it is given is misconfigured, and no text is to be blamed for it.
      probed ??= probe(model, ctx.signal);
      await probed;
      if (to - from === 1) {
        outcomes[from] = 'refused';
        return;
      }
      const middle = (from + to) >> 1;
      await attempt(from, middle);
      await attempt(middle, to);
    }
  };
  const lane = async () => {
    while (next < calls.length && !broken) {
      const [from, to] = calls[next++]!;
      try {
        await attempt(from, to);
        noteWorking(ctx.app, link);
      } catch (error) {
        if (ctx.signal.aborted) throw error;
        broken = true;
        tellFailing(ctx, link, error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(model.lanes, calls.length) }, lane));
  count(ctx, model, outcomes);
  return outcomes;
}

async function probe(model: EmbeddingModel, signal: AbortSignal): Promise<void> {
  try {
    await model.embed(['hello'], signal);
  } catch (error) {
    throw failureOf(error) === 'refused'
      ? new ModelError('misconfigured', 'the embedding model refuses every text', { cause: error })
      : error;
  }
}

/** Splits texts into calls that a model takes, by number and by length: ranges of their positions. */
export function callsOf(
  texts: string[],
  { inputs, characters }: { inputs: number; characters: number },
): [from: number, to: number][] {
  const calls: [number, number][] = [];
  let from = 0;
  let size = 0;
  texts.forEach((text, i) => {
    if (i > from && (i - from === inputs || size + text.length > characters)) {
      calls.push([from, i]);
      from = i;
      size = 0;
    }
    size += text.length;
  });
  if (texts.length > from) calls.push([from, texts.length]);
  return calls;
}

export function tellFailing(ctx: Ctx, link: EmbeddingLink, error: unknown): void {
  const kind = noteFailing(ctx.app, link, error);
  if (kind !== 'breaker_open')
    ctx.log.warn({ err: error, model: link.label, kind }, 'an embedding model can not be used');
}

function count(ctx: Ctx, model: EmbeddingModel, outcomes: Outcome[]): void {
  const add = (outcome: string, number: number) => {
    if (number > 0) ctx.app.metrics.embeddings.inc({ model: model.name, outcome }, number);
  };
  const refused = outcomes.filter((outcome) => outcome === 'refused').length;
  const failed = outcomes.filter((outcome) => outcome === undefined).length;
  add('refused', refused);
  add('failed', failed);
  add('done', outcomes.length - refused - failed);
}
