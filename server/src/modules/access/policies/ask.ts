import type { Ctx } from '#platform/context.ts';
import { invalid } from '#platform/errors.ts';
import { BUILTIN, compilePolicies, explainDecision, namesAsked } from '../policy/service.ts';
import { exchanged } from './change.ts';
import type { PolicyTest } from './schema.ts';
import { getPolicy } from './service.ts';
import { listRules } from './store.ts';
import { questionOf, runTests } from './stored-tests.ts';
import { roleWarnings, warned } from './warnings.ts';

type Named = { role?: string; action?: string; resource?: string };

/**
 * What would be decided, and why. The names come in the query, with the context as the body, or in the body with the
 * context under `context`.
 * @throws ApiError 422 when one of the three names is said twice or not at all
 */
export async function testPolicies(ctx: Ctx, query: Named, body: PolicyTest) {
  const { role, action, resource, context, ...flat } = body;
  const named = { role, action, resource };
  const asked = Object.fromEntries(
    (['role', 'action', 'resource'] as const).map((name) => {
      const [given, ...twice] = [query[name], named[name]].filter((value) => value !== undefined);
      if (given === undefined)
        throw invalid([{ path: `/${name}`, message: 'is required, in the query or the body' }]);
      if (twice.length > 0) throw invalid([{ path: `/${name}`, message: 'is given twice' }]);
      return [name, given];
    }),
  ) as Required<Named>;
  if (context !== undefined && Object.keys(flat).length > 0)
    throw invalid([
      { path: `/${Object.keys(flat)[0]}`, message: 'belongs into context, where context is given' },
    ]);
  const question = questionOf(ctx.tenant, asked, context ?? flat, new Date());
  // The rules as they are stored now, and not as this process last read them.
  const set = compilePolicies(await listRules(ctx.db));
  const { decision, trace } = explainDecision(set, BUILTIN, question);
  const { allowed, ...why } = decision;
  // Nothing is kept of a question, so a slip in it is only told.
  const { errors, warnings: foreign } = namesAsked(asked);
  const roles = await roleWarnings(ctx.db, [{ path: '/role', role: asked.role }]);
  return {
    allowed,
    decision: why,
    trace,
    ...asked,
    context: question,
    ...warned([...errors, ...foreign, ...roles]),
  };
}

/** Runs the tests that are stored with a policy. @throws ApiError 404 */
export async function testPolicy(ctx: Ctx, id: string) {
  const policy = await getPolicy(ctx, id);
  const all = async () => exchanged(await listRules(ctx.db), [{ id, after: { ...policy, is_active: true } }]);
  const results = await runTests(
    ctx.tenant,
    id,
    policy,
    policy.builtin ? async () => listRules(ctx.db) : all,
  );
  return { passed: results.every((result) => result.passed), results };
}
