import { compilePolicies, type PolicyRow, type PolicySet } from './policy-set.ts';

/** What can be done to what. A route declares one of these as its permission, `resource:action`. */
export const RESOURCE_ACTIONS = {
  // assign: role, claims, owner and activity, which decide what somebody may do
  identity: ['create', 'read', 'list', 'update', 'assign', 'delete'],
  delegations: ['create', 'read', 'list', 'delete'],
  memory: ['create', 'read', 'list', 'search', 'update', 'delete'],
  corpora: ['create', 'read', 'list', 'update', 'delete'],
  documents: ['create', 'read', 'list', 'update', 'delete', 'reindex', 'share'],
  runs: ['create', 'read', 'list', 'cancel', 'delete'],
  policy: ['create', 'read', 'list', 'update', 'delete', 'test'],
  api_keys: ['create', 'read', 'list', 'update', 'delete'],
  sessions: ['create', 'read', 'list', 'delete'],
  tenants: ['create', 'read', 'list', 'update', 'delete'],
  credentials: ['read', 'update'],
  invitations: ['create', 'read', 'list', 'update', 'delete'],
  identity_providers: ['create', 'read', 'list', 'update', 'delete'],
  webhooks: ['create', 'read', 'list', 'update', 'delete'],
  events: ['create', 'read', 'list', 'update', 'delete'],
  usage: ['read', 'list', 'update'],
  audit: ['read'],
  monitoring: ['read'],
  rate_limits: ['list', 'update', 'delete'],
  dsar: ['execute'],
  ops: ['read', 'update'],
  admin: ['create', 'read', 'list', 'update', 'delete'],
} as const;

export type Resource = keyof typeof RESOURCE_ACTIONS;
export type Permission = { [r in Resource]: `${r}:${(typeof RESOURCE_ACTIONS)[r][number]}` }[Resource];

/** The two halves of a permission, as a decision's context wants them. */
export function splitPermission(permission: Permission): { resource: Resource; action: string } {
  const [resource, action] = permission.split(':') as [Resource, string];
  return { resource, action };
}

/** The roles that come with policies. Any other role a tenant names can do nothing until a policy says so. */
export const BUILTIN_ROLES = ['system', 'admin', 'editor', 'reader', 'agent', 'user'] as const;

const HIGHEST = ['system', 'admin'];
/** What a holder of any other role may hand out besides its own role. */
const LOWEST = ['reader', 'agent', 'user'];

/**
 * True when a holder of one role may give somebody another: its own, and those below. A role that a tenant named itself
 * may be mighty or weak, so only `admin` and `system` give one to others; nobody gives `system`.
 */
export function mayGive(role: string, given: string): boolean {
  if (given === 'system') return false;
  if (given === role || HIGHEST.includes(role)) return true;
  return LOWEST.includes(given) && given !== role && (role === 'editor' || !isBuiltin(role));
}

const isBuiltin = (role: string): boolean => (BUILTIN_ROLES as readonly string[]).includes(role);

type Rule = Record<string, unknown>;

const attribute = (name: string): Rule => ({ var: name });
const onResources = (...resources: Resource[]): Rule => ({ in: [attribute('resource'), resources] });
const doing = (...actions: string[]): Rule => ({ in: [attribute('action'), actions] });
const anyOf = (...rules: Rule[]): Rule => ({ or: rules });
const allOf = (...rules: Rule[]): Rule => ({ and: rules });

const OWNED = { '==': [attribute('target.owner'), attribute('identity_id')] };
const ITSELF = { '==': [attribute('target.id'), attribute('identity_id')] };

const ownMemory = (...actions: string[]) => allOf(onResources('memory'), doing(...actions), OWNED);
// `write` is the one word that Manushya.ai's clients and policies use for create, update and delete.
const OWN_MEMORY = ownMemory('read', 'list', 'search', 'create', 'update', 'delete', 'write');
const OWN_IDENTITY_READ = allOf(onResources('identity'), doing('read', 'list'), anyOf(ITSELF, OWNED));
const OWN_IDENTITY_UPDATE = allOf(onResources('identity'), doing('update'), anyOf(ITSELF, OWNED));
const OWN_KEYS_READ = allOf(onResources('api_keys'), doing('read', 'list'), OWNED);
const OWN_KEYS = allOf(onResources('api_keys'), doing('create', 'read', 'list', 'update', 'delete'), OWNED);
const OWN_SESSIONS = allOf(onResources('sessions'), doing('read', 'list', 'delete'), OWNED);
const OWN_CREDENTIALS = allOf(onResources('credentials'), doing('read', 'update'), OWNED);
const RUNS = allOf(
  onResources('runs'),
  anyOf(doing('create'), allOf(doing('read', 'list', 'cancel', 'delete'), OWNED)),
);
const KNOWLEDGE_READ = allOf(onResources('corpora', 'documents'), doing('read', 'list'));
const DOCUMENTS_WRITE = allOf(
  onResources('documents'),
  doing('create', 'update', 'delete', 'reindex', 'share'),
);
const CORPORA_UPDATE = allOf(onResources('corpora'), doing('update'));
// A person may let any agent act for it: nobody gains more than that person has.
const DELEGATIONS = allOf(
  onResources('delegations'),
  anyOf(
    allOf(doing('create'), anyOf(OWNED, { '==': [attribute('target.role'), 'agent'] })),
    allOf(doing('read', 'list', 'delete'), OWNED),
  ),
);
const OWN_MONITORING = allOf(onResources('monitoring'), OWNED);
const SELF = [
  OWN_MONITORING,
  OWN_IDENTITY_READ,
  OWN_IDENTITY_UPDATE,
  OWN_SESSIONS,
  DELEGATIONS,
  OWN_KEYS,
  OWN_CREDENTIALS,
];

const RULES: Record<(typeof BUILTIN_ROLES)[number], Rule> = {
  system: anyOf(onResources('tenants'), OWN_IDENTITY_READ, OWN_SESSIONS),
  // Tenants are not a thing inside a tenant.
  admin: allOf({ '==': [attribute('role'), 'admin'] }, { '!=': [attribute('resource'), 'tenants'] }),
  editor: anyOf(KNOWLEDGE_READ, DOCUMENTS_WRITE, CORPORA_UPDATE, RUNS, OWN_MEMORY, ...SELF),
  reader: anyOf(KNOWLEDGE_READ, RUNS, ownMemory('read', 'list', 'search'), ...SELF),
  agent: anyOf(
    KNOWLEDGE_READ,
    RUNS,
    OWN_MEMORY,
    OWN_MONITORING,
    OWN_IDENTITY_READ,
    OWN_SESSIONS,
    DELEGATIONS,
    OWN_KEYS_READ,
  ),
  user: anyOf(KNOWLEDGE_READ, RUNS, OWN_MEMORY, ...SELF),
};

/** The built-in policies as a tenant sees them: JSON Logic, one a role, with stable ids (`builtin:reader`). */
export const BUILTIN_POLICIES: readonly PolicyRow[] = BUILTIN_ROLES.map((role) => ({
  id: `builtin:${role}`,
  role,
  rule: RULES[role],
  effect: 'allow',
  priority: 0,
  is_active: true,
}));

/**
 * The compiled built-in policies, asked when no policy of the tenant decides.
 *
 * | role | may |
 * |---|---|
 * | system | make, see, change and delete the tenants of the installation; nothing inside one |
 * | admin | everything in its tenant (row-level security holds the border, not this rule) |
 * | editor | read and write documents, update corpora, runs, its own memories |
 * | reader | read documents and corpora, runs, read its own memories |
 * | agent, user | read documents and corpora, runs, read and write their own memories |
 *
 * Besides: everybody reads itself, the agents that belong to it, and its own sessions, may end those, and may let an
 * agent act for it; all but agents update themselves, their password and second factor, and manage API keys that act as
 * themselves; agents see theirs.
 *
 * **Own** means `target.owner` equals `identity_id` (for an identity also `target.id`). One rule serves both
 * moments at which a route asks. Before a row is known the route's permission is decided with `target: 'own'`:
 * "could the caller do this to something of its own?". A yes there lets the request in and promises no row:
 * each row is decided again with its real owner, and lists narrow themselves with `narrow`. With `target: null`
 * an own-only permission is refused, so forgetting to say what is meant closes the door.
 */
export const BUILTIN: PolicySet = compilePolicies(BUILTIN_POLICIES);
