import type { Ctx } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { forbidden } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { viewOf } from '../../access/policy/service.ts';
import { insertInference } from './inference-store.ts';
import { newRow } from './rows.ts';
import type { ConversationInfer, ConversationInferred } from './schema.ts';
import { alwaysSensitive } from './sensitive-types.ts';
import { targetOf } from './target.ts';
import { refuseErased } from './tombstones.ts';
import { insertMemories } from './write-store.ts';

/** The statements that have facts inferred from stored memories; they belong in the transaction that stores them. */
export function inferenceOf(ctx: Ctx, source_ids: string[]): Statement[] {
  const id = uuidv7();
  const { actor, requestId: request_id } = ctx;
  return [
    insertInference(ctx.tenant, { id, actor, source_ids, request_id, created_at: new Date().toISOString() }),
    fact(ctx, {
      id,
      type: 'memory.inference_requested',
      resource_type: 'memory',
      ...(source_ids.length === 1 ? { resource_id: source_ids[0]! } : {}),
      data: { memory_ids: source_ids },
    }),
  ];
}

/**
 * Stores the messages of a conversation as they are, one memory each, and has facts inferred from all of them together.
 * @throws ApiError 403, 409 MEMORY_ERASED, 422
 */
export async function rememberConversation(
  ctx: Ctx,
  { messages, type = 'message', ...common }: ConversationInfer,
): Promise<ConversationInferred> {
  const now = new Date();
  const view = await viewOf(ctx, 'memory:create');
  const always = await alwaysSensitive(ctx);
  const rows = messages.map(({ role, content, occurred_at }) =>
    newRow(
      ctx,
      always,
      { ...common, type, text: content, role, infer: true, ...(occurred_at ? { occurred_at } : {}) },
      now,
    ),
  );
  if (view.rows !== 'all' && !rows.every((row) => view.sees(targetOf(row))))
    throw forbidden('POLICY_DENIED', 'A policy of your tenant does not allow this.');
  await refuseErased(ctx, rows);
  const memory_ids = rows.map(({ id }) => id);
  const status = rows[0]!.inference_status as ConversationInferred['inference_status'];
  await ctx.db.batch([
    ...insertMemories(ctx.tenant, rows, ctx.app.vectorTypes),
    fact(ctx, {
      type: 'memory.bulk_created',
      resource_type: 'memory',
      data: { created_count: rows.length, memory_ids },
    }),
    ...(status === 'pending' ? inferenceOf(ctx, memory_ids) : []),
  ]);
  return { memory_ids, inference_status: status };
}
