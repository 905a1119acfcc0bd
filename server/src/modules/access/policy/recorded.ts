import type { RecordedQuestion, RecordedTarget } from '../decisions/service.ts';
import { type PolicyContext, type PolicyTarget, policyContext } from './context.ts';
import type { Kept } from './kept.ts';

/** Names kept of labels and metadata, and the longest value as JSON; a longer one is left out, not cut. */
const limits = { names: 20, value: 300 };

/** What a decision was about, as far as its record goes. */
export interface Asked {
  context: PolicyContext;
  target: PolicyTarget | 'own' | null;
  kept: Kept;
  /** Stands for the path, unless a policy reads the path itself. */
  route: string | undefined;
}

/** The question as text: the same for questions that are recorded as one. */
export function keyOf({ context, target, kept, route }: Asked): string {
  const { identity, request, agent } = context;
  const path = kept.path ? request.path : route;
  const asked = `${identity.id} ${context.role} ${context.resource}:${context.action} ${request.method} ${path} ${agent?.id}`;
  if (target === null || typeof target === 'string') return `${asked} ${target}`;
  const { owner, type, role } = target;
  const kind = `${asked} ${owner == null ? '' : owner === identity.id} ${target.id === identity.id} ${role}\n${type}`;
  const more = detailsOf(target, kept);
  return more === undefined ? kind : `${kind}\n${JSON.stringify(more)}`;
}

/** What is stored of it. */
export function questionOfRecord({ context, target, kept, route }: Asked): RecordedQuestion {
  const { role, action, resource, identity, request, agent } = context;
  const path = kept.path ? request.path : route;
  return {
    role,
    action,
    resource,
    identity_id: identity.id,
    ...(agent ? { agent_id: agent.id } : {}),
    target: target === null || target === 'own' ? target : targetOfRecord(target, identity.id, kept),
    request: {
      ...(request.method === undefined ? {} : { method: request.method }),
      ...(path === undefined ? {} : { path: path.slice(0, 500) }),
      ...(request.route_class === undefined ? {} : { route_class: request.route_class }),
    },
  };
}

function targetOfRecord(target: PolicyTarget, asker: string, kept: Kept): RecordedTarget {
  const { id, owner, type, role } = target;
  return {
    ...(owner == null ? {} : { own: owner === asker }),
    ...(id === asker ? { itself: true as const } : {}),
    ...(type == null ? {} : { type: type.slice(0, 200) }),
    ...(role == null ? {} : { role }),
    ...detailsOf(target, kept),
  };
}

/** What of a row is kept because a policy reads it. */
function detailsOf(target: PolicyTarget, kept: Kept): Partial<RecordedTarget> | undefined {
  const { labels, metadata } = kept;
  const plain = labels !== 'all' && labels.size === 0 && metadata !== 'all' && metadata.size === 0;
  if (plain && !kept.id && !kept.owner) return undefined;
  return {
    ...(kept.id && target.id != null ? { id: target.id } : {}),
    ...(kept.owner && target.owner != null ? { owner: target.owner } : {}),
    ...(Array.isArray(target.labels)
      ? labels === 'all' || labels.size > 0
        ? { labels: target.labels.filter(isSmall).slice(0, limits.names) }
        : {}
      : part('labels', target.labels as Record<string, unknown> | null | undefined, labels)),
    ...part('metadata', target.metadata, metadata),
  };
}

function part<N extends 'labels' | 'metadata'>(
  name: N,
  values: Readonly<Record<string, unknown>> | null | undefined,
  names: ReadonlySet<string> | 'all',
): { [name in N]?: Record<string, unknown> } {
  if (values == null || (names !== 'all' && names.size === 0)) return {};
  const read =
    names === 'all' ? Object.keys(values).sort() : [...names].filter((key) => Object.hasOwn(values, key));
  const small = read.filter((key) => isSmall(values[key])).slice(0, limits.names);
  return { [name]: Object.fromEntries(small.map((key) => [key, values[key]])) } as never;
}

const isSmall = (value: unknown): boolean => (JSON.stringify(value) ?? '').length <= limits.value;

/** Somebody of the tenant as it is now. */
export interface Known {
  id: string;
  external_id: string;
  role: string;
  claims: Record<string, unknown>;
}

/** Stands for the owner of a thing that was not the asker's own. */
const somebodyElse = 'somebody else';

/** The question again, asked by who its identity is today, at the time and from the address it was last asked. */
export function replayed(
  tenant: string,
  question: RecordedQuestion,
  last: { time: string; ip: string | null },
  identity: Known,
  agent: Known | undefined,
): PolicyContext {
  const { role, action, resource, target, request } = question;
  const { id, external_id, claims } = identity;
  return policyContext({
    role,
    action,
    resource,
    tenant_id: tenant,
    identity: { id, external_id, claims },
    agent: agent ? { id: agent.id, external_id: agent.external_id, role: agent.role } : null,
    target: target === null || target === 'own' ? target : targetAgain(target, id),
    request: { ...request, ip: last.ip, time: new Date(last.time) },
  });
}

const targetAgain = ({ own, itself, ...target }: RecordedTarget, asker: string): PolicyTarget => ({
  ...(own === undefined ? {} : { owner: own ? asker : somebodyElse }),
  ...(itself ? { id: asker } : {}),
  ...(target as PolicyTarget),
});
