import type { FastifyInstance } from 'fastify';
import { apiKeySchedules } from '#modules/access/api-keys/jobs.ts';
import { apiKeyRoutes } from '#modules/access/api-keys/routes.ts';
import { authenticateKey, flushKeyUses, revokeKeysOf } from '#modules/access/api-keys/service.ts';
import { attemptSchedules } from '#modules/access/attempts/jobs.ts';
import { authzenRoutes } from '#modules/access/authzen/routes.ts';
import { dataKeySchedules } from '#modules/access/data-keys/jobs.ts';
import { dataKeyRoutes } from '#modules/access/data-keys/routes.ts';
import { rewrapDataKeys } from '#modules/access/data-keys/service.ts';
import { decisionSchedules } from '#modules/access/decisions/jobs.ts';
import { flushDecisions, forgetDecisionsOf } from '#modules/access/decisions/service.ts';
import { delegationSchedules } from '#modules/access/delegations/jobs.ts';
import { delegationRoutes } from '#modules/access/delegations/routes.ts';
import { authenticateToken, endGrantsOf } from '#modules/access/delegations/service.ts';
import { type ForgetIdentity, identityJobs } from '#modules/access/identity/jobs.ts';
import { identityRoutes } from '#modules/access/identity/routes.ts';
import type { EndCredentials } from '#modules/access/identity/service.ts';
import { invitationSchedules } from '#modules/access/invitations/jobs.ts';
import { invitationRoutes } from '#modules/access/invitations/routes.ts';
import { forgetInvitationsOf } from '#modules/access/invitations/service.ts';
import { mailJobs, mailSchedules } from '#modules/access/mails/jobs.ts';
import { forgetMailsOf, sealedMails } from '#modules/access/mails/service.ts';
import { mfaSchedules } from '#modules/access/mfa/jobs.ts';
import { mfaRoutes } from '#modules/access/mfa/routes.ts';
import { sealedFactors } from '#modules/access/mfa/service.ts';
import { passwordSchedules } from '#modules/access/passwords/jobs.ts';
import { passwordRoutes } from '#modules/access/passwords/routes.ts';
import { endSignInsOf } from '#modules/access/passwords/service.ts';
import { governancePolicyRoutes, policyRoutes } from '#modules/access/policies/routes.ts';
import { decideAccess, pinPolicies } from '#modules/access/policy/service.ts';
import { registrationRoutes } from '#modules/access/registration/routes.ts';
import { sessionSchedules } from '#modules/access/sessions/jobs.ts';
import { sessionRoutes } from '#modules/access/sessions/routes.ts';
import {
  flushSessionUses,
  loadSigningKeys,
  revokeSessionsOf,
  sealedSigningKeys,
} from '#modules/access/sessions/service.ts';
import { ssoSchedules } from '#modules/access/sso/jobs.ts';
import { ssoRoutes } from '#modules/access/sso/routes.ts';
import { endCodesOf, sealedSignIns } from '#modules/access/sso/service.ts';
import { type ForgetTenant, purgeTenants, tenantSchedules } from '#modules/access/tenants/jobs.ts';
import { tenantRoutes } from '#modules/access/tenants/routes.ts';
import { isAtHome, planOf, SYSTEM_TENANT, tenantOf } from '#modules/access/tenants/service.ts';
import { corpusRoutes } from '#modules/knowledge/corpora/routes.ts';
import { documentJobs, documentSchedules } from '#modules/knowledge/documents/jobs.ts';
import { documentRoutes } from '#modules/knowledge/documents/routes.ts';
import { chunkVectors, forgetInDocuments } from '#modules/knowledge/documents/service.ts';
import { mcpRoutes } from '#modules/knowledge/mcp/routes.ts';
import { mem0Routes } from '#modules/knowledge/mem0/routes.ts';
import { memoryJobs, memorySchedules } from '#modules/knowledge/memory/jobs.ts';
import { memoryRoutes } from '#modules/knowledge/memory/routes.ts';
import { forgetMemoriesOf, memoryVectors } from '#modules/knowledge/memory/service.ts';
import { retrievalSchedules } from '#modules/knowledge/retrieval/service.ts';
import { runSchedules } from '#modules/knowledge/runs/jobs.ts';
import { runRoutes } from '#modules/knowledge/runs/routes.ts';
import { forgetRunsOf, prepareForRuns, removeAudioOf, runsEnded } from '#modules/knowledge/runs/service.ts';
import { vectorJobs, vectorSchedules } from '#modules/knowledge/vectors/jobs.ts';
import { vectorRoutes } from '#modules/knowledge/vectors/routes.ts';
import { rateLimitRoutes } from '#modules/ledger/rate-limits/routes.ts';
import { forgetRulesOf, limitsFor } from '#modules/ledger/rate-limits/service.ts';
import { openBlobs } from '#platform/blobs.ts';
import { prepareChecks } from '#platform/check.ts';
import type { Config } from '#platform/config.ts';
import type { App, Features } from '#platform/context.ts';
import { keysOf } from '#platform/crypto.ts';
import { vectorTypes } from '#platform/db/binary.ts';
import { migrate } from '#platform/db/migrate.ts';
import { type Database, openDatabase } from '#platform/db/open.ts';
import { type Resealed, resealColumn, type SealedColumn } from '#platform/db/reseal.ts';
import { flushDenials } from '#platform/facts/denials.ts';
import { createRelay } from '#platform/facts/relay.ts';
import { createGuardedFetch } from '#platform/fetch.ts';
import { drainRequests } from '#platform/http/draining.ts';
import { pruneIdempotencyKeys, sealedAnswers } from '#platform/http/idempotency.ts';
import { operationRoutes } from '#platform/http/operations.ts';
import type { Route } from '#platform/http/route.ts';
import { buildServer } from '#platform/http/server.ts';
import { type Schedule, startSchedules } from '#platform/jobs/schedule.ts';
import { type JobDefinition, type JobQueue, openJobs } from '#platform/jobs/worker.ts';
import type { Log } from '#platform/log.ts';
import { openMailer } from '#platform/mail.ts';
import { createMetrics } from '#platform/metrics.ts';
import { openModels } from '#platform/models/models.ts';
import { openShared } from '#platform/shared-open.ts';

/** What has vectors. */
const vectorCollections = [memoryVectors.collection, chunkVectors];

/** What an identity can act by. It ends when the identity is deactivated or deleted. */
const credentials: EndCredentials[] = [
  endSignInsOf,
  endCodesOf,
  async (ctx, ids) => void (await revokeSessionsOf(ctx, ids)),
  revokeKeysOf,
  endGrantsOf,
];

/** Every route of the server, in the order of the published contract. */
export const routes: Route[] = [
  ...registrationRoutes,
  ...identityRoutes(credentials),
  ...delegationRoutes,
  ...passwordRoutes,
  ...mfaRoutes,
  ...sessionRoutes,
  ...rateLimitRoutes,
  ...apiKeyRoutes,
  ...tenantRoutes,
  ...invitationRoutes,
  ...ssoRoutes,
  ...policyRoutes,
  ...governancePolicyRoutes,
  ...authzenRoutes,
  ...dataKeyRoutes,
  ...memoryRoutes,
  ...corpusRoutes,
  ...documentRoutes,
  ...runRoutes,
  ...mcpRoutes,
  ...mem0Routes,
  ...vectorRoutes(vectorCollections),
  ...operationRoutes,
];

/** What is kept of an identity. It goes when the identity is removed for good; the ledger stays, and names it by its id. */
const traces: ForgetIdentity[] = [
  forgetMailsOf,
  forgetInvitationsOf,
  forgetMemoriesOf,
  forgetRunsOf,
  forgetInDocuments,
  forgetRulesOf,
  forgetDecisionsOf,
];

/** Every kind of background work, and which facts it follows from. */
export const jobsOf = (config: Config): JobDefinition[] => [
  ...identityJobs(traces),
  ...mailJobs,
  ...memoryJobs,
  ...documentJobs(config),
  ...vectorJobs(vectorCollections),
];

/** Writes what was gathered of access off the request path: refusals as facts, and how questions were decided. */
async function flushAccess(app: App): Promise<void> {
  await flushDenials(app);
  await flushDecisions(app);
}

/** What tenants have besides rows. */
const outside: ForgetTenant[] = [removeAudioOf];

/** Removes now what deleted tenants have. */
export const purgeDeletedTenants = (app: App, now?: number) => purgeTenants(app, outside, now);

/** All that ENCRYPTION_KEY seals, besides the data keys of tenants, which seal the rest. */
export const sealedColumns: SealedColumn[] = [
  sealedSigningKeys,
  ...sealedFactors,
  ...sealedSignIns,
  sealedMails,
  sealedAnswers,
];

/** Encrypts with ENCRYPTION_KEY all that ENCRYPTION_KEY_PREVIOUS did, which is then needed no more. */
export async function rewrapAll(app: App): Promise<Resealed[]> {
  const { rewrapped, unopened } = await rewrapDataKeys(app);
  const done: Resealed[] = [{ table: 'data_keys', resealed: rewrapped, unopened }];
  for (const sealed of sealedColumns) done.push(await resealColumn(app, sealed));
  return done;
}

/** What the clock asks for, whatever facts say. */
export const schedules: Schedule[] = [
  ...tenantSchedules(outside),
  ...dataKeySchedules,
  ...delegationSchedules,
  ...sessionSchedules,
  ...apiKeySchedules,
  ...mailSchedules,
  ...passwordSchedules,
  ...mfaSchedules,
  ...attemptSchedules,
  ...invitationSchedules,
  ...ssoSchedules,
  ...memorySchedules,
  ...documentSchedules,
  ...runSchedules,
  ...decisionSchedules,
  { name: 'access.flush', pattern: '* * * * * *', own: true, run: flushAccess },
  ...retrievalSchedules,
  ...vectorSchedules,
  { name: 'idempotency.prune', pattern: '0 7 * * * *', run: pruneIdempotencyKeys },
  { name: 'database.vacuum', pattern: '25 * * * * *', run: (app) => app.database.vacuum() },
  { name: 'database.checkpoint', pattern: '55 */5 * * * *', run: (app) => app.database.checkpoint() },
];

/** What the platform asks features for. */
const features: Features = {
  authenticate: async (app, credential, from) => {
    const found = await (credential.startsWith('mk_')
      ? authenticateKey(app, credential, from)
      : authenticateToken(app, credential, from));
    if (!found || !isAtHome(found.tenant, found.actor)) return undefined;
    return (await tenantOf(app, found.tenant))?.is_active ? found : undefined;
  },
  isActive: async (app, tenant) =>
    tenant !== SYSTEM_TENANT && (await tenantOf(app, tenant))?.is_active === true,
  prepare: pinPolicies,
  decide: decideAccess,
  planOf,
  limitsFor,
};

/** A running process: the App and what it was started as. */
export interface Running {
  app: App;
  server: FastifyInstance | undefined;
  queue: JobQueue | undefined;
  /** Takes nothing new, lets what is going on end, closes everything. Called again it does not wait any more for that. */
  stop: () => Promise<void>;
}

/**
 * Opens database, limiter and models, and brings the schema up to date. Nothing runs yet.
 * @param meanwhile what is made ready while the database opens, without asking it anything
 */
export async function openApp(
  config: Config,
  log: Log,
  opened?: Database,
  meanwhile: (app: App) => Promise<void> = async () => {},
): Promise<{ app: App; close: () => Promise<void>; draining: AbortController; closing: AbortController }> {
  const keys = keysOf(config);
  const [draining, closing] = [new AbortController(), new AbortController()];
  const database = opened ?? (await openDatabase(config, log));
  try {
    const app: App = {
      config,
      keys,
      log,
      metrics: createMetrics(),
      database,
      shared: await openShared(config.REDIS_URL, config.DATABASE_URL !== undefined, log),
      models: openModels(config),
      mail: await openMailer(config, log),
      outside: createGuardedFetch(config.FETCH_ALLOW_HOSTS, config.EXT_CALL_TIMEOUT_MS),
      blobs: openBlobs(config.dataDir),
      // Told by the database when its schema is there.
      vectorTypes: { vector: 0, sparsevec: 0 },
      nudgeRelay: () => {},
      enqueue: async () => {},
      features,
      draining: draining.signal,
      closing: closing.signal,
    };
    const prepare = async () => {
      const applied = await migrate(database, keys, { manageRole: !config.DATABASE_APP_URL });
      if (applied.length) log.info({ migrations: applied.length }, 'schema brought up to date');
      app.vectorTypes = await vectorTypes(database.operator);
    };
    await Promise.all([prepare(), meanwhile(app)]);
    const close = async () => {
      for (const flush of [flushDenials, flushKeyUses, flushSessionUses]) await flush(app);
      await flushDecisions(app, true);
      await app.models.close();
      app.mail?.close();
      await app.outside.close();
      await app.shared.close();
      await database.close();
    };
    return { app, close, draining, closing };
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** Lets requests end, and cuts off those that do not in time: one that nobody sends on would hold up everything else. */
async function closeWithin(server: FastifyInstance, graceMs: number): Promise<void> {
  const late = setTimeout(() => server.server.closeAllConnections(), graceMs);
  await server.close().finally(() => {
    clearTimeout(late);
    // A connection that has not said anything yet is neither idle nor busy.
    server.server.closeAllConnections();
  });
}

/** Waits until what is going on has ended, for so long at most. */
async function drained(drains: (() => Promise<unknown>)[], atMostMs: number, hurry: Promise<void>) {
  let late: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => {
    late = setTimeout(resolve, atMostMs);
  });
  await Promise.race([Promise.allSettled(drains.map((drain) => drain())), over, hurry]);
  clearTimeout(late);
}

/** Starts the parts a process is asked to be: the HTTP server, the worker, or both. */
export async function start(
  config: Config,
  log: Log,
  parts: { serve: boolean; work: boolean },
  opened?: Database,
): Promise<Running> {
  let server: FastifyInstance | undefined;
  const build = async (app: App) => {
    if (parts.serve) server = await buildServer(app, routes);
  };
  const { app, close, draining, closing } = await openApp(config, log, opened, build);
  const stops: (() => Promise<void>)[] = [close];
  const drains: (() => Promise<unknown>)[] = [];
  try {
    let queue: JobQueue | undefined;
    if (parts.work) {
      queue = await openJobs(app, jobsOf(config), { supervise: true });
      const relay = createRelay(app, queue.sink);
      const clock = startSchedules(app, schedules);
      app.nudgeRelay = relay.nudge;
      app.enqueue = queue.enqueue;
      stops.push(async () => {
        await clock.stop();
        await relay.stop();
        await queue!.stop(config.SHUTDOWN_GRACE_MS);
      });
      drains.push(clock.stop, queue.drain);
      await queue.work();
      relay.start();
    } else {
      const clock = startSchedules(
        app,
        schedules.filter(({ own }) => own),
      );
      stops.push(clock.stop);
    }
    if (server) {
      await loadSigningKeys(app);
      const closable = server;
      // A run whose client left outlives its connection; it needs the database to the end.
      stops.push(() => runsEnded(app));
      stops.push(() => closeWithin(closable, config.SHUTDOWN_GRACE_MS));
      drains.push(() => drainRequests(app, closable).then(() => runsEnded(app)));
      // For `localhost` Fastify opens a listener that takes connections until the last of the other has ended.
      const host = config.HOST === 'localhost' ? '127.0.0.1' : config.HOST;
      await server.listen({ host, port: config.PORT });
      prepareForRuns(app);
      prepareChecks();
    }
    let stopping: Promise<void> | undefined;
    const hurry = Promise.withResolvers<void>();
    const stop = async () => {
      draining.abort();
      if (config.SHUTDOWN_DRAIN_MS > 0) await drained(drains, config.SHUTDOWN_DRAIN_MS, hurry.promise);
      closing.abort(new Error('the server is shutting down'));
      for (const part of stops.reverse()) await part();
    };
    return {
      app,
      server,
      queue,
      stop: () => {
        if (stopping) hurry.resolve();
        stopping ??= stop();
        return stopping;
      },
    };
  } catch (error) {
    for (const part of stops.reverse())
      await part().catch((late) => log.warn({ err: late }, 'a part did not close'));
    throw error;
  }
}
