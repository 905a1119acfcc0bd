import { invalid } from '#platform/errors.ts';
import {
  attributeProblem,
  BUILTIN,
  BUILTIN_ROLES,
  compilePolicies,
  decide,
  policyContext,
  RESOURCE_ACTIONS,
} from '../policy/service.ts';
import { allOf, anyOf, attribute, equals, isScalar } from './expressions.ts';
import { checkCompiles } from './rules.ts';
import { codePattern, type GovernancePolicy, type GovernancePolicyCreate } from './schema.ts';
import type { Content, Policy, WrittenAs } from './store.ts';

/** Rule keys whose words differ from ours. */
const keys = new Map([['corpora.patch', ['corpora', 'update']]]);

/** Names the original had for some attributes of a rule's context. */
const aliases = new Map([['actor_role', 'role']]);
const rowNames = new Map([
  ['documents', 'document_id'],
  ['corpora', 'corpus_id'],
]);

type Governance = Extract<WrittenAs, { form: 'governance' }>;

/**
 * A rule of the governance form as a policy: for all roles, with its condition in JSON Logic.
 *
 * There, `allow` only ended the search for a deny; what a role may do was asked elsewhere. Here an allow gives. So an
 * allow holds for those only whom the built-in policies would allow it: it lifts denials below it and gives nobody
 * anything.
 * @throws ApiError 422 for a key, condition or action that can not be honoured
 */
export function policyOfGovernance(
  input: Pick<GovernancePolicyCreate, 'rule_key' | 'enabled' | 'priority' | 'condition_json' | 'action_json'>,
): Content {
  const { rule_key, enabled = true, priority = 100, condition_json = {}, action_json } = input;
  const [resource, action] = permissionOf(rule_key);
  const { effect, code, message } = actionOf(action_json);
  const rule = allOf([
    { '==': [attribute('resource'), resource] },
    { '==': [attribute('action'), action] },
    ...conditionsOf(condition_json, resource),
    ...(effect === 'allow' ? [whoMayAnyway(resource, action)] : []),
  ]);
  checkCompiles(rule, '/condition_json');
  return {
    role: '*',
    rule,
    effect,
    priority,
    is_active: enabled,
    description: null,
    code,
    message,
    rule_key,
    tests: [],
    written_as: { form: 'governance', condition_json, action_json },
  };
}

/** The same policy in the form it was written in; undefined for those of the other door. */
export function governanceOf(policy: Policy): GovernancePolicy | undefined {
  const { written_as } = policy;
  if (written_as?.form !== 'governance') return undefined;
  return {
    id: policy.id,
    tenant_id: policy.tenant_id,
    rule_key: policy.rule_key!,
    enabled: policy.is_active,
    priority: policy.priority,
    condition_json: written_as.condition_json,
    action_json: written_as.action_json,
    created_at: policy.created_at,
    updated_at: policy.updated_at,
  };
}

/** What is left of the form when the other door changed the policy: nothing once the rule is another one. */
export function formAfter(before: Content, after: Content): Governance | null {
  const { written_as } = before;
  if (written_as?.form !== 'governance') return null;
  if (after.role !== before.role || after.rule_key !== before.rule_key) return null;
  const { effect, code, message } = after;
  // Whom an allow holds for stands in its rule.
  if (effect !== before.effect) return null;
  if (code === before.code && message === before.message) return written_as;
  const action_json = {
    type: effect,
    ...(code === null ? {} : { code }),
    ...(message === null ? {} : { message }),
  };
  return { ...written_as, action_json };
}

function permissionOf(rule_key: string): [resource: string, action: string] {
  const [resource = '', action = ''] = keys.get(rule_key) ?? rule_key.split('.');
  const known: readonly string[] | undefined = Object.hasOwn(RESOURCE_ACTIONS, resource)
    ? RESOURCE_ACTIONS[resource as keyof typeof RESOURCE_ACTIONS]
    : undefined;
  if (!known?.includes(action) || rule_key.split('.').length !== 2) {
    const examples =
      'documents.delete, documents.reindex, corpora.patch, dsar.execute, or any resource.action';
    throw invalid([{ path: '/rule_key', message: `names nothing that is decided; there are ${examples}` }]);
  }
  return [resource, action];
}

function conditionsOf(conditions: Record<string, unknown>, resource: string): unknown[] {
  return Object.entries(conditions).map(([name, value]) => {
    const at = `/condition_json/${name}`.slice(0, 300);
    switch (name) {
      case 'endpoint_prefix': {
        const prefix = textOf(value, at);
        return { '==': [{ substr: [attribute('request.path'), 0, prefix.length] }, prefix] };
      }
      case 'endpoint': {
        const path = textOf(value, at).replace(/\/$/, '');
        return { in: [attribute('request.path'), [path, `${path}/`]] };
      }
      case 'method':
        return { '==': [attribute('request.method'), textOf(value, at).toUpperCase()] };
      case 'actor_role_in':
        return { in: [attribute('role'), textsOf(value, at)] };
      case 'tags_any':
        return anyOf(textsOf(value, at).map(hasTag));
      default:
        return equality(name, value, at, resource);
    }
  });
}

/** Labels are a list, or names with values. */
const hasTag = (tag: string): unknown => ({
  or: [
    { in: [tag, { var: ['target.labels', []] }] },
    ...(tag.includes('.') ? [] : [{ '!!': [attribute(`target.labels.${tag}`)] }]),
  ],
});

function equality(name: string, value: unknown, at: string, resource: string): unknown {
  const known = name === rowNames.get(resource) ? 'target.id' : (aliases.get(name) ?? name);
  const problem = attributeProblem(known);
  if (problem !== undefined) {
    const others = 'endpoint, endpoint_prefix, method, actor_role_in and tags_any';
    throw invalid([{ path: at, message: `${problem}. Besides attributes there are ${others}` }]);
  }
  if (!isScalar(value)) throw invalid([{ path: at, message: 'must be text, a number, true, false or null' }]);
  return equals(known, value);
}

function textOf(value: unknown, at: string): string {
  if (typeof value === 'string' && value !== '' && value.length <= 1_000) return value;
  throw invalid([{ path: at, message: 'must be text of 1 to 1,000 characters' }]);
}

function textsOf(value: unknown, at: string): string[] {
  if (Array.isArray(value) && value.length > 0 && value.length <= 100)
    return value.map((item) => textOf(item, at));
  throw invalid([{ path: at, message: 'must be a list of 1 to 100 texts' }]);
}

/** `{type, …}`, `{actions: [{type, …}]}` or `{deny: true}`. An action that nothing here would carry out is refused by its name. */
function actionOf(action: Record<string, unknown>): Pick<Content, 'effect' | 'code' | 'message'> {
  if (Object.keys(action).length === 1 && action.deny === true)
    return { effect: 'deny', code: null, message: null };
  if (Object.keys(action).length === 1 && Array.isArray(action.actions)) {
    const [only, ...others] = action.actions as unknown[];
    if (typeof only !== 'object' || only === null || others.length > 0)
      throw invalid([{ path: '/action_json/actions', message: 'must hold one action' }]);
    return actionOf(only as Record<string, unknown>);
  }
  const { type, code, message, ...others } = action;
  if (type !== 'allow' && type !== 'deny') {
    const named = typeof type === 'string' ? `${type.slice(0, 100)} can not be carried out` : 'is not known';
    throw invalid([{ path: '/action_json/type', message: `${named}; there are allow and deny` }]);
  }
  const [unknown] = Object.keys(others);
  if (unknown !== undefined)
    throw invalid([{ path: `/action_json/${unknown}`.slice(0, 300), message: 'is not known in an action' }]);
  return {
    effect: type,
    code: optional(code, codePattern, 64, '/action_json/code'),
    message: optional(message, '\\S', 500, '/action_json/message'),
  };
}

function optional(value: unknown, pattern: string, longest: number, path: string): string | null {
  if (value === undefined || value === null) return null;
  if (typeof value === 'string' && value.length <= longest && new RegExp(pattern).test(value)) return value;
  throw invalid([{ path, message: `must be text of at most ${longest} characters like ${pattern}` }]);
}

const NONE = compilePolicies([]);

/** The roles that built-in policies let do this to anything, and those they let do it to their own. */
function whoMayAnyway(resource: string, action: string): unknown {
  const may = (role: string, target: 'own' | null): boolean => {
    const identity = { id: 'somebody' };
    return decide(NONE, BUILTIN, policyContext({ role, action, resource, tenant_id: '', identity, target }))
      .allowed;
  };
  const anything = BUILTIN_ROLES.filter((role) => may(role, null));
  const own = BUILTIN_ROLES.filter((role) => !anything.includes(role) && may(role, 'own'));
  const asked = { in: [attribute('role'), anything] };
  if (own.length === 0) return asked;
  const whose = { '==': [attribute('target.owner'), attribute('identity_id')] };
  return { or: [asked, { and: [{ in: [attribute('role'), own] }, whose] }] };
}
