/** The thing a decision is about, as far as it is known. Null and undefined fields are missing to every rule. */
export type PolicyTarget = {
  id?: string | null;
  /** Id of the identity it belongs to; for an identity, its owner when it has one. */
  owner?: string | null;
  type?: string | null;
  /** Role of the identity acted upon; answers to `target_role` too. */
  role?: string | null;
  labels?: readonly string[] | Readonly<Record<string, unknown>> | null;
  metadata?: Readonly<Record<string, unknown>> | null;
};

export type PolicyContextInput = {
  /** The role acted with: an API key's may be lower than its identity's. */
  role: string;
  action: string;
  resource: string;
  tenant_id: string;
  identity: {
    id: string;
    external_id?: string | null;
    /** The identity's own role; default: the role acted with. */
    role?: string | null;
    claims?: Readonly<Record<string, unknown>> | null;
  };
  /**
   * - an object: the row at hand;
   * - `'own'`: no row yet, and the question is "could the caller do this to something of its own?" (a route's
   *   permission, before the row is read; each row is then decided with its real owner);
   * - null: the action has no row at all.
   */
  target: PolicyTarget | 'own' | null;
  /** The agent that acts, when it acts for somebody. */
  agent?: { id: string; external_id: string; role: string } | null;
  request?: {
    method?: string | null;
    /** Path without query. */
    path?: string | null;
    ip?: string | null;
    /** RFC 3339 in UTC when a string. */
    time?: Date | string | null;
    route_class?: string | null;
  };
};

/**
 * What rules read. `identity_id`, `external_id` and `claims` repeat fields of `identity`; `memory_type` and
 * `memory_metadata` repeat `target.type` and `target.metadata` on the resource `memory`; `target_role` repeats
 * `target.role` on the resource `identity`.
 */
export type PolicyContext = {
  role: string;
  action: string;
  resource: string;
  tenant_id: string;
  identity: { id: string; external_id?: string; role: string; claims: Readonly<Record<string, unknown>> };
  target?: { [field in keyof PolicyTarget]?: NonNullable<PolicyTarget[field]> };
  /** Missing unless an agent acts for somebody; then it is there when that person's policies are asked, and the agent's. */
  agent?: { id: string; external_id: string; role: string };
  request: {
    method?: string;
    path?: string;
    ip?: string;
    time?: string;
    /** Of the time, in UTC: 0 is Monday. */
    weekday?: number;
    route_class?: string;
  };
  identity_id: string;
  external_id?: string;
  claims: Readonly<Record<string, unknown>>;
  memory_type?: string;
  memory_metadata?: Readonly<Record<string, unknown>>;
  target_role?: string;
  /** Only where another application asks: its question as it sent it. */
  authzen?: Readonly<Record<string, unknown>>;
};

/** Attributes whose value differs from row to row; `*` stands for a rule that may read anything. */
export const TARGET_ATTRIBUTES = ['target', 'memory_type', 'memory_metadata', 'target_role', '*'] as const;

/** Builds the context of one decision. Null and undefined become absent, so that they compare as missing. */
export function policyContext(input: PolicyContextInput): PolicyContext {
  const { role, action, resource, tenant_id, identity } = input;
  const claims = identity.claims ?? {};
  const context: PolicyContext = {
    role,
    action,
    resource,
    tenant_id,
    identity: { id: identity.id, role: identity.role ?? role, claims },
    request: requestOf(input.request),
    identity_id: identity.id,
    claims,
  };
  if (identity.external_id != null) {
    context.identity.external_id = identity.external_id;
    context.external_id = identity.external_id;
  }
  if (input.agent != null) context.agent = input.agent;
  return input.target === null ? context : withTarget(context, input.target);
}

/** The same question about another row: shares everything of `context` but the target and its aliases. */
export function withTarget(context: PolicyContext, target: PolicyTarget | 'own'): PolicyContext {
  const row = target === 'own' ? { owner: context.identity.id } : present(target);
  const next: PolicyContext = { ...context, target: row };
  delete next.memory_type;
  delete next.memory_metadata;
  delete next.target_role;
  if (context.resource === 'memory') {
    if (row.type !== undefined) next.memory_type = row.type;
    if (row.metadata !== undefined) next.memory_metadata = row.metadata;
  }
  if (context.resource === 'identity' && row.role !== undefined) next.target_role = row.role;
  return next;
}

// Field by field, since it is done for every decision.
function requestOf({
  method,
  path,
  ip,
  time,
  route_class,
}: NonNullable<PolicyContextInput['request']> = {}): PolicyContext['request'] {
  const known: PolicyContext['request'] = {};
  if (method != null) known.method = method;
  if (path != null) known.path = path;
  if (ip != null) known.ip = ip;
  if (route_class != null) known.route_class = route_class;
  if (time == null) return known;
  known.time = typeof time === 'string' ? time : time.toISOString();
  const day = (typeof time === 'string' ? new Date(time) : time).getUTCDay();
  if (!Number.isNaN(day)) known.weekday = (day + 6) % 7;
  return known;
}

function present<T extends object>(fields: T): { [key in keyof T]?: NonNullable<T[key]> } {
  const known: { [key in keyof T]?: NonNullable<T[key]> } = {};
  for (const key of Object.keys(fields) as (keyof T)[]) {
    const value = fields[key];
    if (value != null) known[key] = value as NonNullable<T[keyof T]>;
  }
  return known;
}
