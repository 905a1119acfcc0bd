import type { Blobs } from './blobs.ts';
import type { Config, Plan } from './config.ts';
import type { Keys } from './crypto.ts';
import type { VectorTypes } from './db/binary.ts';
import type { Db } from './db/database.ts';
import type { Database } from './db/open.ts';
import type { GuardedFetch } from './fetch.ts';
import type { Limits } from './http/limits.ts';
import type { JobPayload } from './jobs/worker.ts';
import type { Log } from './log.ts';
import type { Mailer } from './mail.ts';
import type { Metrics } from './metrics.ts';
import type { Models } from './models/models.ts';
import type { Shared } from './shared.ts';

/** Lives as long as the process: what every request and job shares. */
export interface App {
  config: Config;
  keys: Keys;
  log: Log;
  metrics: Metrics;
  database: Database;
  shared: Shared;
  models: Models;
  /** Undefined where mails can not leave. */
  mail: Mailer | undefined;
  /** The way to addresses that tenants tell. */
  outside: GuardedFetch;
  blobs: Blobs;
  vectorTypes: VectorTypes;
  /** Tells the relay of this process, if there is one, that facts were committed. */
  nudgeRelay: () => void;
  /** Makes jobs by hand, for schedules that mend what a crash left. Facts make jobs by themselves. */
  enqueue: (job: string, payloads: JobPayload[], afterMs?: number) => Promise<void>;
  features: Features;
  /** Aborted when the process is told to end: it takes nothing new, and what is going on goes on. */
  draining: AbortSignal;
  /** Aborted when the time for that is over: whatever still goes on is ended. */
  closing: AbortSignal;
}

/** What the platform needs from features; `app.ts` fills it in, so the platform imports none. */
export interface Features {
  /** The actor behind a credential, or undefined: unknown, expired, revoked and malformed look the same. */
  authenticate: (app: App, credential: string, from: Origin) => Promise<Authenticated | undefined>;
  /** Makes ready what decisions of this request need, before any transaction is open. */
  prepare: (ctx: Ctx) => Promise<void>;
  /**
   * Decides by policy; the decision says which policy and why. `rowsFollow`: each row is decided later, so whoever could
   * be allowed for some row is let in.
   */
  decide: (
    ctx: Ctx,
    permission: Permission,
    target?: Target,
    rowsFollow?: boolean,
  ) => Promise<PermissionDecision>;
  /** Whether a tenant is there and not switched off. */
  isActive: (app: App, tenant: string) => Promise<boolean>;
  /** The tenant's plan. */
  planOf: (app: App, tenant: string) => Promise<Plan>;
  /** What a request counts against. */
  limitsFor: (ctx: Ctx, routeClass: RouteClass, operation: string | undefined) => Promise<Limits>;
}

/** Where a request comes from. */
export interface Origin {
  ip: string;
  headers: { 'user-agent'?: string | undefined };
}

export interface Authenticated {
  tenant: string;
  actor: Actor;
}

/** Who acts. `credential` names the token's session, the key or the grant: limits and idempotency are counted by it. */
export interface Actor {
  type: 'identity' | 'api_key' | 'system' | 'anonymous';
  identity_id: string | undefined;
  external_id: string | undefined;
  role: string;
  claims: Record<string, unknown>;
  credential: string;
  session_id?: string;
  /** Undefined for tokens: what the policy allows. For keys: what the key was limited to. */
  scopes?: string[];
  /** Set when agents act for the identity, by its leave. */
  delegation?: Delegation;
}

/** Agents that act for somebody. All of them, and the one they act for, must be allowed what is done. */
export interface Delegation {
  grant_id: string;
  /** The one that calls comes first, then whoever let it act, as in `act` of a token (RFC 8693, section 4.1). */
  agents: { identity_id: string; external_id: string; role: string; claims: Record<string, unknown> }[];
  /** What each grant was limited to; each must cover what is done. */
  scopes: string[][];
}

/** `resource:action`, e.g. `memory:read`. */
export type Permission = `${string}:${string}`;

/** What is acted upon, as policies see it. */
export interface Target {
  id?: string;
  owner?: string;
  type?: string;
  labels?: Record<string, unknown>;
  metadata?: Record<string, unknown>;
  role?: string;
}

export interface PermissionDecision {
  allowed: boolean;
  policy_id: string | null;
  reason: string;
  code?: string;
  message?: string;
}

export type RouteClass = 'run' | 'mutation' | 'read' | 'ops';

export interface RequestFacts {
  method: string;
  path: string;
  /** Template of the route, `/v1/documents/:document_id`. */
  route: string;
  /** The path as rules see it: of the route, whatever alias, escapes or trailing slash were sent. */
  canonical_path: string;
  ip: string;
  user_agent: string | undefined;
  route_class: RouteClass;
}

/** Lives as long as one request or one job. */
export interface Ctx {
  app: App;
  tenant: string;
  actor: Actor;
  requestId: string;
  request: RequestFacts | undefined;
  signal: AbortSignal;
  log: Log;
  /** The database as this tenant sees it; inside an idempotent request, the transaction that also stores the answer. */
  db: Db;
}

export const systemActor: Actor = {
  type: 'system',
  identity_id: undefined,
  external_id: undefined,
  role: 'system',
  claims: {},
  credential: 'system',
};

/** The context of work nobody asked for just now: jobs, schedules, the command line. */
export function systemCtx(
  app: App,
  tenant: string,
  requestId: string,
  signal: AbortSignal = app.closing,
): Ctx {
  return {
    app,
    tenant,
    actor: systemActor,
    requestId,
    request: undefined,
    signal,
    log: app.log.child({ request_id: requestId, tenant_id: tenant }),
    db: app.database.tenant(tenant),
  };
}

/** The same request on behalf of a tenant that its own words named, where no credential does: sign-ups and sign-ins. */
export const inTenant = (ctx: Ctx, tenant: string, actor: Actor = ctx.actor): Ctx =>
  Object.create(ctx, {
    tenant: { value: tenant },
    actor: { value: actor },
    db: { value: ctx.app.database.tenant(tenant), writable: true },
  });

/** The same request with its writes in a transaction that is open. */
export const inTransaction = (ctx: Ctx, tx: Db): Ctx => Object.create(ctx, { db: { value: tx } });
