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

/** A fact as it is stored, except for its tenant. */
export interface FactRow {
  id: string;
  type: string;
  actor_type: string;
  actor_id: string;
  /** The person an agent acted for. */
  on_behalf_of: string | undefined;
  resource_type: string;
  resource_id: string | undefined;
  outcome: string;
  before: Record<string, unknown> | undefined;
  after: Record<string, unknown> | undefined;
  data: Record<string, unknown>;
  request_id: string;
  ip: string | undefined;
  user_agent: string | undefined;
  created_at: string;
}

/** What a fact of this request says; to be stored with `insertFacts` where many go together. */
export function factRow({ actor, request, requestId }: Ctx, input: FactInput): FactRow {
  const agent = actor.delegation?.agents[0];
  return {
    id: input.id ?? uuidv7(),
    type: input.type,
    actor_type: actor.type,
    actor_id: agent?.identity_id ?? actor.identity_id ?? actor.credential,
    on_behalf_of: agent && actor.identity_id,
    resource_type: input.resource_type,
    resource_id: input.resource_id,
    outcome: input.outcome ?? 'success',
    before: redacted(input.before),
    after: redacted(input.after),
    data: redacted(input.data) ?? {},
    request_id: requestId,
    ip: request?.ip,
    user_agent: request?.user_agent?.slice(0, 400),
    created_at: new Date().toISOString(),
  };
}

/** The statement that writes a fact; it belongs in the batch or transaction of the change itself. */
export const fact = (ctx: Ctx, input: FactInput): Statement => insertFact(ctx.tenant, factRow(ctx, input));

const insertFact = (tenant: string, row: FactRow): Statement => sql`
    insert into facts (tenant_id, id, type, actor_type, actor_id, on_behalf_of, resource_type, resource_id, outcome,
      before, after, data, request_id, ip, user_agent, created_at)
    values (${tenant}, ${row.id}, ${row.type}, ${row.actor_type}, ${row.actor_id}, ${row.on_behalf_of},
      ${row.resource_type}, ${row.resource_id}, ${row.outcome}, ${row.before}, ${row.after}, ${row.data}, ${row.request_id}, ${row.ip},
      ${row.user_agent}, ${row.created_at})`;

/** The statement that writes the facts of several requests of one tenant. */
export function insertFacts(tenant: string, rows: FactRow[]): Statement {
  if (rows.length === 1) return insertFact(tenant, rows[0]!);
  const column = <K extends keyof FactRow>(name: K) => rows.map((row) => row[name]);
  const json = (name: 'before' | 'after' | 'data') =>
    rows.map((row) => (row[name] === undefined ? null : JSON.stringify(row[name])));
  return sql`
    insert into facts (tenant_id, id, type, actor_type, actor_id, on_behalf_of, resource_type, resource_id, outcome,
      before, after, data, request_id, ip, user_agent, created_at)
    select ${tenant}, r.id, r.type, r.actor_type, r.actor_id, r.on_behalf_of, r.resource_type, r.resource_id, r.outcome,
      r.before::jsonb, r.after::jsonb, r.data::jsonb, r.request_id, r.ip, r.user_agent, r.created_at
    from unnest(${column('id')}::uuid[], ${column('type')}::text[], ${column('actor_type')}::text[],
      ${column('actor_id')}::text[], ${column('on_behalf_of')}::text[], ${column('resource_type')}::text[],
      ${column('resource_id')}::text[], ${column('outcome')}::text[], ${json('before')}::text[], ${json('after')}::text[], ${json('data')}::text[],
      ${column('request_id')}::text[], ${column('ip')}::text[], ${column('user_agent')}::text[],
      ${column('created_at')}::timestamptz[])
      as r (id, type, actor_type, actor_id, on_behalf_of, resource_type, resource_id, outcome, before, after, data, request_id, ip,
        user_agent, created_at)
    returning 1`;
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
