import { invalid } from '#platform/errors.ts';
import {
  BUILTIN,
  compilePolicies,
  explainDecision,
  type PolicyContext,
  type PolicyContextInput,
  type PolicyRow,
  type PolicyTarget,
  type PolicyTrace,
  policyContext,
} from '../policy/service.ts';
import type { QuestionContext, StoredTest } from './schema.ts';
import type { Content } from './store.ts';

const maxTestBytes = 64 * 1024;
/** Who asks, where nobody says who. */
const somebody = 'somebody';

/** The question a caller describes, as rules read it. What is not said is missing, but for a target: that is its own. */
export function questionOf(
  tenant: string,
  { role, action, resource }: { role: string; action: string; resource: string },
  context: QuestionContext,
  time?: Date,
): PolicyContext {
  const { identity = {}, agent, request = {}, memory_type, memory_metadata, target_role } = context;
  const id = identity.id ?? context.identity_id ?? somebody;
  const row = {
    ...(memory_type === undefined ? {} : { type: memory_type }),
    ...(memory_metadata === undefined ? {} : { metadata: memory_metadata }),
    ...(target_role === undefined ? {} : { role: target_role }),
  };
  const described = Object.keys(row).length > 0;
  const { target = described ? { owner: id } : 'own' } = context;
  return policyContext({
    role,
    action,
    resource,
    tenant_id: tenant,
    identity: {
      id,
      external_id: identity.external_id ?? context.external_id ?? null,
      role: identity.role ?? null,
      claims: identity.claims ?? context.claims ?? {},
    },
    target:
      described && typeof target === 'object'
        ? ({ ...row, ...target } as PolicyTarget)
        : (target as PolicyTarget),
    agent: agent ? { external_id: agent.id, role: 'agent', ...agent } : null,
    request: { ...(time ? { time } : {}), ...(request as NonNullable<PolicyContextInput['request']>) },
  });
}

export interface TestResult {
  name: string;
  passed: boolean;
  expect: StoredTest['expect'];
  got: StoredTest['expect'];
  trace: PolicyTrace[];
}

const NONE = compilePolicies([]);
/** Policies shown of each test. */
const shown = 10;

/**
 * Runs a policy's stored tests.
 * @param all the tenant's policies with this one among them; asked for only when a test is about a whole decision
 */
export async function runTests(
  tenant: string,
  id: string,
  content: Content,
  all: () => Promise<PolicyRow[]>,
): Promise<TestResult[]> {
  const alone = compilePolicies([rowOf(id, content)]);
  const whole = content.tests.some(({ expect }) => typeof expect === 'object')
    ? compilePolicies(await all())
    : NONE;
  return content.tests.map(({ name, context, expect }) => {
    const { role: asked, action, resource, ...rest } = context;
    const question = questionOf(tenant, { role: asked ?? content.role, action, resource }, rest);
    if (typeof expect === 'object') {
      const { decision, trace } = explainDecision(whole, BUILTIN, question, shown);
      const { allowed } = decision;
      return { name, passed: allowed === expect.allowed, expect, got: { allowed }, trace };
    }
    const { decision, trace } = explainDecision(alone, NONE, question, shown);
    const got = decision.reason === 'policy' ? 'match' : 'no_match';
    return { name, passed: got === expect, expect, got, trace };
  });
}

/** The policy as deciding sees it, in force whether it is or not. */
export const rowOf = (id: string, content: Content, is_active = true): PolicyRow => {
  const { role, rule, effect, priority, code, message } = content;
  return { id, role, rule, effect, priority, is_active, code, message };
};

/** @throws ApiError 422 for tests that can not be kept: a name twice, no role to ask as, too much in all */
export function checkTests({ tests, role }: Pick<Content, 'tests' | 'role'>): void {
  const names = new Set<string>();
  tests.forEach(({ name, context }, i) => {
    if (names.has(name))
      throw invalid([{ path: `/tests/${i}/name`, message: 'is the name of another test' }]);
    names.add(name);
    if (role === '*' && context.role === undefined) {
      const message = 'is required: the policy is one of all roles';
      throw invalid([{ path: `/tests/${i}/context/role`, message }]);
    }
  });
  if (Buffer.byteLength(JSON.stringify(tests)) > maxTestBytes)
    throw invalid([{ path: '/tests', message: `are more than ${maxTestBytes} bytes of JSON` }]);
}
