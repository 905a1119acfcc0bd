import type { Ctx } from '#platform/context.ts';
import { sha256 } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import type { Statement } from '#platform/db/sql.ts';
import { ApiError } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { JobPayload } from '#platform/jobs/worker.ts';
import { type AnswerModel, AnswerModelError } from '#platform/models/answers.ts';
import { type View, viewOf } from '../../access/policy/service.ts';
import { applyChange } from './change.ts';
import { duplicateFrom } from './duplicates.ts';
import { openMemories, sealRows } from './encryption.ts';
import { askForDecisions, askForFacts, type InferredFact, shownTexts } from './inference-prompt.ts';
import {
  findInference,
  type Inference,
  insertDerivations,
  type KnownFact,
  keepSources,
  selectKnown,
  setInferenceStatus,
  takeInference,
} from './inference-store.ts';
import { comparable, likeness } from './likeness.ts';
import { asTheyAreNow, onBehalfOf } from './on-behalf.ts';
import { newRow, weightsOf } from './rows.ts';
import type { Derivation, Memory } from './schema.ts';
import { type AlwaysSensitive, alwaysSensitive } from './sensitive-types.ts';
import { findMemories, lockMemory } from './store.ts';
import { targetOf } from './target.ts';
import { erasedAmong } from './tombstones.ts';
import { insertMemories, type MemoryRow } from './write-store.ts';

/** Memories shown to the model beside each new fact. */
const knownEach = 5;
/** Below this a known memory is about something else. */
const relatedFrom = 0.2;

/** What becomes of one inferred fact. */
type Outcome = { is: 'added' | 'unchanged' } | { is: 'updated'; known: KnownFact; text: string };

/**
 * Has the model infer facts from stored memories and merges them into what their owner remembers: new ones are added, known
 * ones left, and earlier inferences that no longer hold replaced by a next version. Nothing that somebody wrote is changed.
 * The model is asked outside the transaction; what it said takes effect once, with the row of the work.
 */
export async function inferFacts(jobCtx: Ctx, { fact_id }: JobPayload): Promise<void> {
  const work = await findInference(jobCtx.db, fact_id);
  if (!work) return;
  const asked = onBehalfOf(jobCtx, work.actor, work.request_id);
  const now = await asTheyAreNow(asked);
  const ctx = now ?? asked;
  const model = ctx.app.models.answers;
  const always = await alwaysSensitive(ctx);
  const sources = (await findMemories(ctx.db, work.source_ids, new Date()))
    .filter(({ sensitive, type }) => !sensitive && !always.has(type))
    .sort((a, b) => a.id.localeCompare(b.id));
  if (!model || sources.length === 0 || !now)
    return endInference(
      ctx,
      work,
      model ? 'failed' : 'unavailable',
      model ? 'SOURCES_GONE' : 'LLM_CONFIG_MISSING',
    );
  try {
    const { texts, isCut } = shownTexts(
      sources.map(({ role, occurred_at, created_at, text }) => ({
        role,
        at: occurred_at ?? created_at,
        text,
      })),
    );
    const facts = distinct(ctx, await askForFacts(model, texts, ctx.signal));
    const outcomes = await outcomesOf(ctx, model, facts, sources);
    const derivation: Derivation = {
      memory_ids: sources.map(({ id }) => id),
      source_hash: sha256(JSON.stringify(sources.map(({ text }) => text))).toString('hex'),
      model: model.name,
      inferred_at: new Date().toISOString(),
    };
    await merge(ctx, work, { facts, outcomes, derivation, sources, isCut });
  } catch (error) {
    // What is wrong with the configuration is wrong the next time as well.
    if (!(error instanceof AnswerModelError) || !/CONFIG|AUTH/.test(error.code)) throw error;
    await endInference(ctx, work, 'failed', error.code);
  }
}

/** Called when the model failed for good: the memories stay as they are, and say so. */
export async function giveUpInference(ctx: Ctx, { fact_id }: JobPayload, reason: unknown): Promise<void> {
  const work = await findInference(ctx.db, fact_id);
  if (!work) return;
  const code = reason instanceof AnswerModelError ? reason.code : 'LLM_ERROR';
  await endInference(onBehalfOf(ctx, work.actor, work.request_id), work, 'failed', code);
}

async function endInference(
  ctx: Ctx,
  work: Inference,
  status: 'failed' | 'unavailable',
  code: string,
): Promise<void> {
  await ctx.db.batch([
    takeInference(ctx.tenant, work.id),
    setInferenceStatus(ctx.tenant, work.source_ids, status),
    fact(ctx, {
      type: 'memory.inference_failed',
      resource_type: 'memory',
      outcome: 'failure',
      data: { memory_ids: work.source_ids, code },
    }),
  ]);
}

function distinct(ctx: Ctx, facts: InferredFact[]): InferredFact[] {
  const fitting = facts.filter(({ text }) => text.length <= ctx.app.config.MAX_MEMORY_SIZE);
  return [...new Map(fitting.map((one) => [comparable(one.text).exact, one])).values()];
}

/** What is to become of each fact, beside what its owner remembers already. */
async function outcomesOf(
  ctx: Ctx,
  model: AnswerModel,
  facts: InferredFact[],
  sources: Memory[],
): Promise<Outcome[]> {
  const without = sources.map(({ id }) => id);
  const always = [...(await alwaysSensitive(ctx))];
  const owner = sources[0]!.identity_id;
  const answers = await ctx.db.batch(
    facts.map(({ text }) =>
      selectKnown(ctx.tenant, owner, weightsOf(text).words, { without, always }, knownEach, new Date()),
    ),
  );
  const outcomes: Outcome[] = facts.map(() => ({ is: 'added' }));
  const known = new Map<string, KnownFact>();
  const undecided: number[] = [];
  for (const [i, { text }] of facts.entries()) {
    const mine = comparable(text);
    const near = answers[i]!.rows.map((row) => ({ row, score: likeness(mine, comparable(row.text)) }));
    if (near.some(({ score }) => score >= duplicateFrom)) outcomes[i] = { is: 'unchanged' };
    else if (near.some(({ score }) => score >= relatedFrom)) {
      undecided.push(i);
      for (const { row, score } of near) if (score >= relatedFrom) known.set(row.id, row);
    }
  }
  if (undecided.length === 0) return outcomes;
  const shown = [...known.values()];
  const decisions = await askForDecisions(
    model,
    undecided.map((i) => facts[i]!.text),
    shown.map(({ text }) => text),
    ctx.signal,
  );
  for (const { fact: number, decision, known: place, text } of decisions) {
    const i = undecided[number];
    const target = place == null ? undefined : shown[place];
    if (i === undefined) continue;
    if (decision === 'NONE') outcomes[i] = { is: 'unchanged' };
    // Only what was inferred is ever replaced: the words of people are theirs.
    else if (decision === 'UPDATE' && target?.derived_from)
      outcomes[i] = { is: 'updated', known: target, text: text ?? facts[i]!.text };
  }
  return outcomes;
}

interface Merging {
  facts: InferredFact[];
  outcomes: Outcome[];
  derivation: Derivation;
  sources: Memory[];
  isCut: boolean;
}

/** Stores what was inferred, and that it was, in one transaction; does nothing when somebody else has. */
async function merge(ctx: Ctx, work: Inference, { facts, outcomes, derivation, sources, isCut }: Merging) {
  const source = sources[0]!;
  const views = { create: await viewOf(ctx, 'memory:create'), update: await viewOf(ctx, 'memory:update') };
  await ctx.db.transaction(async (tx) => {
    if ((await tx.rows(takeInference(ctx.tenant, work.id))).length === 0) return;
    const kept = new Map((await keepSources(tx, derivation.memory_ids)).map((row) => [row.id, row.version]));
    // Tried again, with what they say now or with those that are left: nothing is made of a text that was erased.
    if (sources.some(({ id, version }) => kept.get(id) !== version))
      throw new Error('what facts were inferred from was changed meanwhile');
    const now = new Date();
    const asking = { app: ctx.app, tenant: ctx.tenant, db: tx };
    const always = await alwaysSensitive(asking);
    const erased = await erasedAmong(
      asking,
      facts.map(({ text }) => ({ identity_id: source.identity_id, text })),
    );
    const updated: string[] = [];
    const rows: MemoryRow[] = [];
    let unchanged = 0;
    for (const [i, one] of facts.entries()) {
      const outcome = outcomes[i]!;
      if (erased.has(i) || outcome.is === 'unchanged') unchanged += 1;
      else if (outcome.is === 'updated' && (await replace(ctx, tx, outcome, derivation, views.update, now)))
        updated.push(outcome.known.id);
      else {
        const row = inferredRow(ctx, always, one, source, derivation, now);
        if (views.create.sees(targetOf(row))) rows.push(row);
      }
    }
    const added = rows.map(({ id }) => id);
    await tx.batch([
      ...(rows.length > 0
        ? insertMemories(ctx.tenant, await sealRows(asking, rows), ctx.app.vectorTypes)
        : []),
      ...[...added, ...updated].map((id) => insertDerivations(ctx.tenant, derivation.memory_ids, id)),
      setInferenceStatus(ctx.tenant, work.source_ids, 'succeeded'),
      ...factsOf(ctx, { added, updated, unchanged, isCut, derivation }),
    ]);
  });
}

function factsOf(
  ctx: Ctx,
  done: { added: string[]; updated: string[]; unchanged: number; isCut: boolean; derivation: Derivation },
): Statement[] {
  const { added, updated, unchanged, isCut, derivation } = done;
  const bulk = { created_count: added.length, memory_ids: added };
  return [
    ...(added.length > 0
      ? [fact(ctx, { type: 'memory.bulk_created', resource_type: 'memory', data: bulk })]
      : []),
    fact(ctx, {
      type: 'memory.inferred',
      resource_type: 'memory',
      data: {
        source_ids: derivation.memory_ids,
        source_hash: derivation.source_hash,
        model: derivation.model,
        added,
        updated,
        unchanged,
        ...(isCut ? { cut: true } : {}),
      },
    }),
  ];
}

function inferredRow(
  ctx: Ctx,
  always: AlwaysSensitive,
  { text, type = 'fact' }: InferredFact,
  source: Memory,
  derived_from: Derivation,
  now: Date,
): MemoryRow {
  const row = newRow(ctx, always, { text, type, metadata: { ...source.metadata, source: 'inference' } }, now);
  return {
    ...row,
    identity_id: source.identity_id,
    session_id: source.session_id,
    // What was to be forgotten at some time does not outlive it in other words.
    ttl_days: source.ttl_days,
    expires_at: source.expires_at,
    derived_from,
  };
}

/** @returns false when the memory is not any more what the decision was about */
async function replace(
  ctx: Ctx,
  tx: Db,
  { known, text }: Extract<Outcome, { is: 'updated' }>,
  derivation: Derivation,
  view: View,
  now: Date,
): Promise<boolean> {
  const locked = await lockMemory(tx, known.id, now);
  if (!locked || locked.version !== known.version || !view.sees(targetOf(locked))) return false;
  const [before] = await openMemories({ app: ctx.app, tenant: ctx.tenant, db: tx }, [locked]);
  const memory_ids = [...new Set([...(before!.derived_from?.memory_ids ?? []), ...derivation.memory_ids])];
  const derived_from = { ...derivation, memory_ids };
  try {
    await applyChange(ctx, tx, before!, { text, derived_from }, 'inferred', now);
    return true;
  } catch (error) {
    if (error instanceof ApiError) return false;
    throw error;
  }
}
