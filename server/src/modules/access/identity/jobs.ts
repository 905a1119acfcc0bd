import type { Ctx } from '#platform/context.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { JobDefinition } from '#platform/jobs/worker.ts';

/** Removes what a module keeps of an identity that was removed itself. Repeatable, and in steps where there may be much. */
export type ForgetIdentity = (ctx: Ctx, identityId: string) => Promise<void>;

const forget = 'identity.forget';
/** Longer than any process keeps back what it has to write about an identity, as questions that were asked again. */
const againMs = 90_000;
const afterFailureMs = 3_600_000;

/** @param traces what each module keeps of an identity */
export const identityJobs = (traces: ForgetIdentity[]): JobDefinition[] => [
  {
    name: forget,
    follows: ['identity.deleted'],
    per: 'fact',
    concurrency: 1,
    timeoutS: 900,
    retries: 20,
    run: async (ctx, payload) => {
      const { data, resource_id: id } = payload;
      if (data.kind !== 'hard_deleted') return;
      for (const trace of traces) {
        ctx.signal.throwIfAborted();
        await trace(ctx, id!);
      }
      if (data.again) return;
      const later = { ...payload, fact_id: uuidv7(), data: { ...data, again: true } };
      await ctx.app.enqueue(forget, [later], againMs);
    },
    failed: async (ctx, payload, reason) => {
      ctx.log.error(
        { err: reason, identity_id: payload.resource_id },
        'what a removed identity had could not be removed yet; it is tried again',
      );
      await ctx.app.enqueue(forget, [{ ...payload, fact_id: uuidv7() }], afterFailureMs);
    },
  },
];
