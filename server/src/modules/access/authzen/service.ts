import type { App, Ctx } from '#platform/context.ts';
import { badRequest } from '#platform/errors.ts';
import { recordDenial } from '#platform/facts/denials.ts';
import { findActiveIdentities } from '../identity/service.ts';
import {
  BUILTIN,
  decide,
  type Known,
  type PolicyContext,
  type PolicyTarget,
  policiesOf,
  policyContext,
  recordQuestion,
} from '../policy/service.ts';
import { type Decision, type Question, question, type Semantic, semantics } from './schema.ts';

/** Questions of one request. */
const most = 100;

const bad = (message: string) => badRequest('BAD_REQUEST', message);

/** Where this decision point is (section 9.1). */
export const metadataOf = ({ config }: App) => ({
  policy_decision_point: config.publicUrl,
  access_evaluation_endpoint: `${config.publicUrl}/access/v1/evaluation`,
  access_evaluations_endpoint: `${config.publicUrl}/access/v1/evaluations`,
});

/** Answers another application whether somebody of the tenant may do something to something of that application's. */
export async function evaluate(ctx: Ctx, body: unknown): Promise<Decision> {
  const asked = questionFrom(body);
  if (typeof asked === 'string') throw bad(asked);
  const people = await peopleOf(ctx, [asked]);
  return answer(ctx, people, asked);
}

/**
 * Answers several questions. Top-level fields stand for those a question leaves out (section 7.1.1); a question that is
 * none is answered with no, in its place.
 */
export async function evaluateAll(
  ctx: Ctx,
  { evaluations, options, ...defaults }: { evaluations?: unknown; options?: unknown },
): Promise<Decision | { evaluations: Decision[] }> {
  const semantic = semanticOf(options);
  if (evaluations !== undefined && !Array.isArray(evaluations))
    throw bad('The field evaluations must be a list.');
  if (evaluations === undefined || evaluations.length === 0) return evaluate(ctx, defaults);
  if (evaluations.length > most) throw bad(`At most ${most} questions go into one request.`);
  const asked = evaluations.map((one: unknown) =>
    typeof one === 'object' && one !== null && !Array.isArray(one)
      ? questionFrom({ ...defaults, ...one })
      : 'An evaluation must be an object.',
  );
  const people = await peopleOf(
    ctx,
    asked.filter((one): one is Question => typeof one !== 'string'),
  );
  const answers: Decision[] = [];
  for (const one of asked) {
    const decision =
      typeof one === 'string'
        ? { decision: false, context: { error: { status: 400, message: one } } }
        : await answer(ctx, people, one);
    answers.push(decision);
    if (semantic === 'deny_on_first_deny' && !decision.decision) break;
    if (semantic === 'permit_on_first_permit' && decision.decision) break;
  }
  return { evaluations: answers };
}

function semanticOf(options: unknown): Semantic {
  if (options === undefined) return 'execute_all';
  if (typeof options !== 'object' || options === null || Array.isArray(options))
    throw bad('The field options must be an object.');
  const { evaluations_semantic: given = 'execute_all' } = options as { evaluations_semantic?: unknown };
  const known = semantics.find((one) => one === given);
  if (!known) throw bad(`The option evaluations_semantic must be one of ${semantics.join(', ')}.`);
  return known;
}

/** @returns what is wrong, as text, when it is no question */
function questionFrom(body: unknown): Question | string {
  if (question.Check(body)) return body;
  const [first] = question.Errors(body);
  const missing = first?.keyword === 'required' ? first.params.requiredProperties[0] : undefined;
  const place = [
    ...(first?.instancePath ?? '').split('/').slice(1),
    ...(missing === undefined ? [] : [missing]),
  ].join('.');
  if (missing !== undefined) return `${place} is required.`.replace(/^./, (letter) => letter.toUpperCase());
  return `The field ${place || 'context'} ${first?.message ?? 'is not valid'}.`;
}

/** The subjects by the names they were called: an id wins over somebody else's external id of the same text. */
async function peopleOf(ctx: Ctx, asked: Question[]): Promise<Map<string, Known>> {
  const names = [...new Set(asked.map(({ subject }) => subject.id))];
  const found = await findActiveIdentities(ctx.db, names);
  const byId = new Map(found.map((identity) => [identity.id, identity]));
  const byName = new Map(found.map((identity) => [identity.external_id, identity]));
  return new Map(
    names.flatMap((name) => {
      const identity = byId.get(name.toLowerCase()) ?? byName.get(name);
      return identity ? [[name, identity] as const] : [];
    }),
  );
}

async function answer(ctx: Ctx, people: Map<string, Known>, asked: Question): Promise<Decision> {
  const identity = people.get(asked.subject.id);
  // Deciding for people we do not know would be deciding by whatever the caller says of them.
  if (!identity) return { decision: false, context: { reason: 'subject_unknown' } };
  const target = targetFrom(asked.resource);
  const context = contextOf(ctx, asked, identity, target);
  const set = await policiesOf(ctx);
  const decision = decide(set, BUILTIN, context);
  recordQuestion(ctx, set, context, target, decision, 'authzen');
  if (!decision.allowed) {
    const about = { id: asked.resource.id.slice(0, 200) };
    recordDenial(ctx, `${context.resource}:${context.action}`, about, decision, { subject_id: identity.id });
  }
  const { allowed, policy_id, reason, code, message } = decision;
  return {
    decision: allowed,
    context: { reason, policy_id, ...(code ? { code } : {}), ...(message ? { message } : {}) },
  };
}

/** What the application says of its resource: all of it as metadata, and what has a place of its own there as well. */
function targetFrom({ id, properties = {} }: Question['resource']): PolicyTarget {
  const { owner, type, role, labels } = properties;
  const text = (value: unknown) => (typeof value === 'string' ? value : null);
  return {
    id,
    owner: text(owner),
    type: text(type),
    role: text(role),
    labels: typeof labels === 'object' ? (labels as PolicyTarget['labels']) : null,
    metadata: properties,
  };
}

/** Role and claims are what we know of the identity; what the caller says of it stands under `authzen` alone. */
function contextOf(ctx: Ctx, asked: Question, identity: Known, target: PolicyTarget): PolicyContext {
  const { method, path, ip, time, route_class } = asked.context ?? {};
  const text = (value: unknown) => (typeof value === 'string' ? value.slice(0, 2_000) : null);
  const given = typeof time === 'string' && !Number.isNaN(Date.parse(time)) ? new Date(time) : new Date();
  const { id, external_id, role, claims } = identity;
  return {
    ...policyContext({
      role,
      action: asked.action.name,
      resource: asked.resource.type,
      tenant_id: ctx.tenant,
      identity: { id, external_id, claims },
      target,
      request: {
        method: text(method),
        path: text(path),
        ip: text(ip),
        time: given,
        route_class: text(route_class),
      },
    }),
    authzen: asked,
  };
}
