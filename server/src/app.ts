import type { FastifyInstance } from 'fastify';
import { authenticateKey } from '#modules/access/api-keys/service.ts';
import { identityRoutes } from '#modules/access/identity/routes.ts';
import { mailJobs, mailSchedules } from '#modules/access/mails/jobs.ts';
import { decideAccess, pinPolicies } from '#modules/access/policy/service.ts';
import { registrationRoutes } from '#modules/access/registration/routes.ts';
import { sessionRoutes } from '#modules/access/sessions/routes.ts';
import { authenticateToken, loadSigningKeys } from '#modules/access/sessions/service.ts';
import { planOf, tenantOf } from '#modules/access/tenants/service.ts';
import { corpusRoutes } from '#modules/knowledge/corpora/routes.ts';
import { documentJobs, documentSchedules } from '#modules/knowledge/documents/jobs.ts';
import { documentRoutes } from '#modules/knowledge/documents/routes.ts';
import { memoryJobs, memorySchedules } from '#modules/knowledge/memory/jobs.ts';
import { memoryRoutes } from '#modules/knowledge/memory/routes.ts';
import { runSchedules } from '#modules/knowledge/runs/jobs.ts';
import { runRoutes } from '#modules/knowledge/runs/routes.ts';
import { runsEnded } from '#modules/knowledge/runs/service.ts';
import { openBlobs } from '#platform/blobs.ts';
import type { Config } from '#platform/config.ts';
import type { App, Features } from '#platform/context.ts';
import { deriveKeys } from '#platform/crypto.ts';
import { vectorTypes } from '#platform/db/binary.ts';
import { migrate } from '#platform/db/migrate.ts';
import { openDatabase } from '#platform/db/open.ts';
import { flushDenials } from '#platform/facts/denials.ts';
import { createRelay } from '#platform/facts/relay.ts';
import { pruneIdempotencyKeys } from '#platform/http/idempotency.ts';
import { operationRoutes } from '#platform/http/operations.ts';
import type { Route } from '#platform/http/route.ts';
import { buildServer } from '#platform/http/server.ts';
import { type Schedule, startSchedules } from '#platform/jobs/schedule.ts';
import { type JobDefinition, type JobQueue, openJobs } from '#platform/jobs/worker.ts';
import type { Log } from '#platform/log.ts';
import { openMailer } from '#platform/mail.ts';
import { createMetrics } from '#platform/metrics.ts';
import { openModels } from '#platform/models/models.ts';
import { openShared } from '#platform/shared.ts';

/** Every route of the server, in the order of the published contract. */
export const routes: Route[] = [
  ...registrationRoutes,
  ...identityRoutes,
  ...sessionRoutes,
  ...memoryRoutes,
  ...corpusRoutes,
  ...documentRoutes,
  ...runRoutes,
  ...operationRoutes,
];

/** Every kind of background work, and which facts it follows from. */
export const jobsOf = (config: Config): JobDefinition[] => [
  ...mailJobs,
  ...memoryJobs,
  ...documentJobs(config),
];

/** What the clock asks for, whatever facts say. */
export const schedules: Schedule[] = [
  ...mailSchedules,
  ...memorySchedules,
  ...documentSchedules,
  ...runSchedules,
  { name: 'access.flush', pattern: '* * * * * *', run: flushDenials },
  { name: 'idempotency.prune', pattern: '0 7 * * * *', run: pruneIdempotencyKeys },
  { name: 'database.vacuum', pattern: '0 */10 * * * *', run: (app) => app.database.vacuum() },
];

/** What the platform asks features for. */
const features: Features = {
  authenticate: async (app, credential) => {
    const found = await (credential.startsWith('mk_')
      ? authenticateKey(app, credential)
      : authenticateToken(app, credential));
    return found && (await tenantOf(app, found.tenant))?.is_active ? found : undefined;
  },
  prepare: pinPolicies,
  decide: decideAccess,
  planOf,
};

/** A running process: the App and what it was started as. */
export interface Running {
  app: App;
  server: FastifyInstance | undefined;
  queue: JobQueue | undefined;
  /** Stops taking work, lets what runs end, closes everything. */
  stop: () => Promise<void>;
}

/** Opens database, limiter and models, and brings the schema up to date. Nothing runs yet. */
export async function openApp(
  config: Config,
  log: Log,
): Promise<{ app: App; close: () => Promise<void>; closing: AbortController }> {
  const keys = deriveKeys(config.secretKey, config.encryptionKey);
  const closing = new AbortController();
  const database = await openDatabase(config, keys, (error) =>
    log.warn({ err: error }, 'a database connection was lost'),
  );
  try {
    const applied = await migrate(database, keys, { manageRole: !config.DATABASE_APP_URL });
    if (applied.length) log.info({ migrations: applied.length }, 'schema brought up to date');
    const app: App = {
      config,
      keys,
      log,
      metrics: createMetrics(),
      database,
      shared: openShared(config.REDIS_URL, config.DATABASE_URL !== undefined, log),
      models: openModels(config),
      mail: openMailer(config, log),
      blobs: openBlobs(config.dataDir),
      vectorTypes: await vectorTypes(database.operator),
      nudgeRelay: () => {},
      enqueue: async () => {},
      features,
      closing: closing.signal,
    };
    const close = async () => {
      await flushDenials(app);
      await app.models.close();
      app.mail?.close();
      await app.shared.close();
      await database.close();
    };
    return { app, close, closing };
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** Starts the parts a process is asked to be: the HTTP server, the worker, or both. */
export async function start(
  config: Config,
  log: Log,
  parts: { serve: boolean; work: boolean },
): Promise<Running> {
  const { app, close, closing } = await openApp(config, log);
  const stops: (() => Promise<void>)[] = [close];
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
      await queue.work();
      relay.start();
    } else {
      const clock = startSchedules(
        app,
        schedules.filter(({ name }) => name === 'access.flush'),
      );
      stops.push(clock.stop);
    }
    let server: FastifyInstance | undefined;
    if (parts.serve) {
      await loadSigningKeys(app);
      server = await buildServer(app, routes);
      const closable = server;
      // A run whose client left outlives its connection; it needs the database to the end.
      stops.push(() => runsEnded(app));
      stops.push(() => closable.close());
      await server.listen({ host: config.HOST, port: config.PORT });
    }
    let stopping: Promise<void> | undefined;
    const stop = async () => {
      closing.abort(new Error('the server is shutting down'));
      for (const part of stops.reverse()) await part();
    };
    return { app, server, queue, stop: () => (stopping ??= stop()) };
  } catch (error) {
    for (const part of stops.reverse())
      await part().catch((late) => log.warn({ err: late }, 'a part did not close'));
    throw error;
  }
}
