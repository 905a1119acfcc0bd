import type { Ctx } from '../context.ts';
import { type Statement, sql } from '../db/sql.ts';
import { uuidv7 } from '../ids.ts';

/** What happened. `before`, `after` and `data` hold identifiers and properties: never secrets, message text or document text. */
export interface FactInput {
  /** Given when the answer names it: the id of the fact is the id of the job that follows from it. */
  id?: string;
  type: string;
  resource_type: string;
  resource_id?: string;
  outcome?: 'success' | 'failure';
  before?: Record<string, unknown>;
  after?: Record<string, unknown>;
  data?: Record<string, unknown>;
}

/** The statement that writes a fact; it belongs in the batch or transaction of the change itself. */
export function fact(ctx: Ctx, input: FactInput): Statement {
  const { actor, request } = ctx;
  return sql`
    insert into facts (tenant_id, id, type, actor_type, actor_id, on_behalf_of, resource_type, resource_id, outcome,
      before, after, data, request_id, ip, user_agent, created_at)
    values (${ctx.tenant}, ${input.id ?? uuidv7()}, ${input.type}, ${actor.type}, ${actor.identity_id ?? actor.credential}, ${null},
      ${input.resource_type}, ${input.resource_id}, ${input.outcome ?? 'success'},
      ${redacted(input.before)}, ${redacted(input.after)}, ${redacted(input.data) ?? '{}'},
      ${ctx.requestId}, ${request?.ip}, ${request?.user_agent?.slice(0, 400)}, ${new Date()})`;
}

const secretName =
  /(^|_)(authorization|password|passwd|secret|token|api_key|refresh|private_key|text|content|message|query)$/i;

/** Replaces values whose field name says they are secret or somebody's words. `content_type` and `tokens_used` stay. */
export function redacted(value: Record<string, unknown> | undefined): Record<string, unknown> | undefined {
  if (value === undefined) return undefined;
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => {
      if (secretName.test(name) && item !== null && item !== undefined) return [name, '[REDACTED]'];
      return [name, isRecord(item) ? redacted(item) : item];
    }),
  );
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
