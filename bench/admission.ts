/** What a request costs before its handler: authenticate, take the tenant's policies, decide the route's permission. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { openApp } from '../server/src/app.ts';
import { prepareApiKey } from '../server/src/modules/access/api-keys/service.ts';
import { ensureIdentity } from '../server/src/modules/access/identity/service.ts';
import { createPolicy } from '../server/src/modules/access/policies/service.ts';
import type { PolicyRow } from '../server/src/modules/access/policy/policy-set.ts';
import { loadSigningKeys, startSession } from '../server/src/modules/access/sessions/service.ts';
import { tenantInsert } from '../server/src/modules/access/tenants/service.ts';
import { memoryRoutes } from '../server/src/modules/knowledge/memory/routes.ts';
import { readConfig } from '../server/src/platform/config.ts';
import { type App, systemCtx } from '../server/src/platform/context.ts';
import { RequestContext } from '../server/src/platform/http/request-context.ts';
import { createLog } from '../server/src/platform/log.ts';
import { refusalOf } from '../server/src/platform/permission.ts';

const ROUNDS = 7;
const REQUESTS = 10_000;

export interface Admission {
  credential: string;
  policies: number;
  mean_us: number;
  authorise_us: number;
}

/** @param policies of the tenant; what is asked is to read memories, as a user */
export async function measureAdmission(policies: PolicyRow[]): Promise<Admission[]> {
  const directory = mkdtempSync(join(tmpdir(), 'manushya-bench-'));
  const { app, close } = await openApp(readConfig({ DATA_DIR: directory }), createLog('error'));
  try {
    await loadSigningKeys(app);
    const credentials = await prepare(app, policies);
    const concerned = policies.filter(({ role }) => role === 'user' || role === '*').length;
    const measured: Admission[] = [];
    for (const [credential, text] of Object.entries(credentials)) {
      await median(app, text, admit);
      const mean_us = await median(app, text, admit);
      const authorise_us = mean_us - (await median(app, text, authenticate));
      measured.push({ credential, policies: concerned, mean_us, authorise_us });
    }
    return measured;
  } finally {
    await close();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function prepare(app: App, policies: PolicyRow[]): Promise<Record<string, string>> {
  const tenant = 'bench';
  const ctx = systemCtx(app, tenant, 'bench');
  await ctx.db.run(tenantInsert(tenant, tenant, new Date()));
  const identity = await ensureIdentity(ctx, 'somebody', 'user');
  const session = await startSession(ctx, identity, new Date());
  const key = prepareApiKey(ctx, { identity_id: identity.id, name: 'bench' }, new Date());
  await ctx.db.batch([...session.statements, ...key.statements]);
  for (const { role, rule, effect, priority } of policies)
    await createPolicy(ctx, { role, rule: rule as Record<string, unknown>, effect, priority });
  return { 'access token (JWT)': session.tokens.access_token, 'API key': key.text };
}

const route = memoryRoutes.find(({ name }) => name === 'get_memory')!;
const request = {
  id: 'bench',
  url: '/v1/memory/01890000-0000-7000-8000-000000000000',
  method: 'GET',
  params: { memory_id: '01890000-0000-7000-8000-000000000000' },
  ip: '192.0.2.1',
  headers: { 'user-agent': 'bench' },
} as unknown as FastifyRequest;
const reply = { raw: {} } as FastifyReply;

async function authenticate(app: App, credential: string): Promise<RequestContext> {
  const known = await app.features.authenticate(app, credential, request);
  if (!known) throw new Error('the credential is not taken');
  return new RequestContext(app, known.tenant, known.actor, request, reply, route);
}

async function admit(app: App, credential: string): Promise<void> {
  const ctx = await authenticate(app, credential);
  await app.features.prepare(ctx);
  if (await refusalOf(ctx, route.permission!, undefined, route.decidesRows))
    throw new Error('the policies refuse it');
}

/** Processor time of one call, the median of some rounds. */
async function median(
  app: App,
  credential: string,
  call: (app: App, credential: string) => Promise<unknown>,
): Promise<number> {
  const rounds: number[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    const before = process.cpuUsage();
    for (let j = 0; j < REQUESTS; j++) await call(app, credential);
    const { user, system } = process.cpuUsage(before);
    rounds.push((user + system) / REQUESTS);
  }
  return rounds.sort((a, b) => a - b)[Math.floor(ROUNDS / 2)]!;
}
