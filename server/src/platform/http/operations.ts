import { Type as T } from 'typebox';
import type { App } from '../context.ts';
import { sql } from '../db/sql.ts';
import { Answer, route } from './route.ts';

const withTimeout = <V>(work: Promise<V>, ms: number, fallback: V): Promise<V> => {
  let timer: NodeJS.Timeout;
  const late = new Promise<V>((resolve) => {
    timer = setTimeout(resolve, ms, fallback);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
};

async function health(app: App) {
  const [database, shared] = await Promise.all([
    withTimeout(
      app.database.operator.one(sql`select 1`).then(
        () => true,
        () => false,
      ),
      2_000,
      false,
    ),
    withTimeout(app.shared.reachable(), 2_000, false),
  ]);
  return { database, redis: shared, status: database && shared ? ('ok' as const) : ('degraded' as const) };
}

/** Probes and scrapers add parameters of their own, which must not make a server that works look ill. */
const AnyQuery = T.Object({}, { additionalProperties: true });

/** What load balancers and operators ask, without a credential. */
export const operationRoutes = [
  route({
    method: 'GET',
    path: '/healthz',
    query: AnyQuery,
    name: 'healthz',
    summary: 'Whether the database and Redis answer',
    tag: 'operations',
    public: true,
    response: {
      200: T.Object({
        database: T.Boolean(),
        redis: T.Boolean({ description: 'False while it is away; true where none is configured' }),
        status: T.Union([T.Literal('ok'), T.Literal('degraded')]),
      }),
    },
    handler: async ({ app }) => health(app),
  }),
  route({
    method: 'GET',
    path: '/v1/health',
    query: AnyQuery,
    name: 'health',
    operationId: 'health_health_get',
    summary: 'Whether the server can work',
    tag: 'operations',
    public: true,
    envelope: true,
    legacy: true,
    response: { 200: T.Object({ status: T.String() }) },
    handler: async ({ app }) => ({ status: (await health(app)).status }),
  }),
  route({
    method: 'GET',
    path: '/metrics',
    query: AnyQuery,
    name: 'metrics',
    summary: 'Prometheus metrics',
    tag: 'operations',
    public: true,
    produces: 'text/plain',
    response: { 200: T.String() },
    handler: async ({ app }) => {
      app.metrics.poolWaiting.set(app.database.waiting());
      const { database, redis } = await health(app);
      app.metrics.dependencyUp.set({ dependency: 'database' }, Number(database));
      app.metrics.dependencyUp.set({ dependency: 'redis' }, Number(redis));
      return new Answer(200, await app.metrics.registry.metrics(), {
        'content-type': app.metrics.registry.contentType,
      });
    },
  }),
  route({
    method: 'GET',
    path: '/',
    name: 'root',
    summary: 'Where things are',
    tag: 'operations',
    public: true,
    response: {
      200: T.Object({
        message: T.String(),
        version: T.String(),
        docs: T.String(),
        health: T.String(),
        metrics: T.String(),
      }),
    },
    handler: async ({ app }) => ({
      message: 'Welcome to Manushya',
      version: app.config.version,
      docs: '/v1/docs',
      health: '/healthz',
      metrics: '/metrics',
    }),
  }),
];
