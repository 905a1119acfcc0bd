import type { FastifyRequest } from 'fastify';
import type { Static, TSchema } from 'typebox';
import type { Config } from '../config.ts';
import type { Ctx, Permission, RouteClass } from '../context.ts';

type In<S> = S extends TSchema ? Static<S> : undefined;

export interface RouteInput<P, Q, B> {
  params: In<P>;
  query: In<Q>;
  body: In<B>;
  /** The request itself, for what schemas do not describe: uploads, headers. */
  raw: FastifyRequest;
}

/** What a handler answers when status 200 and a bare body are not all. */
export class Answer {
  readonly status: number;
  readonly body: unknown;
  readonly headers: Record<string, string>;
  constructor(status: number, body?: unknown, headers: Record<string, string> = {}) {
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

/** A body that is written as it comes: server-sent events. The stream ends, fails and is left as `write` decides. */
export class Stream {
  readonly write: (request: FastifyRequest, response: import('node:http').ServerResponse) => Promise<void>;
  constructor(write: Stream['write']) {
    this.write = write;
  }
}

interface Common<P, Q, B> {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: string;
  /** Name of the operation; with path and method it makes the operation id, as FastAPI does. */
  name: string;
  /** Overrides the made operation id where generated clients carry another name. */
  operationId?: string;
  summary: string;
  tag: string;
  params?: P;
  query?: Q;
  /** Headers it looks at besides those all routes know: name, and what it is for. */
  headers?: Record<string, string>;
  body?: B;
  /** A body may be left out altogether. */
  bodyOptional?: true;
  /** Media type of the body where it is not JSON. */
  consumes?: string;
  /** Media type of the answer where it is not JSON. */
  produces?: string;
  /** Status of success and the schema of its body; `null` for an empty body. */
  response: Record<number, TSchema | null>;
  /** `data`/`meta` around the body (the NexusRAG family) instead of the bare resource. */
  envelope?: true;
  /** The limit it counts against; by method when not said. */
  routeClass?: RouteClass;
  /** Name of an hourly ceiling of its own. */
  operation?: string;
  /** Tokens and quota units of one call. */
  cost?: number;
  /** Tokens of one call where they depend on its headers. */
  costOf?: (request: FastifyRequest) => number;
  /** False for writes that only read; `manual` where the handler itself looks at the Idempotency-Key. */
  idempotent?: false | 'manual';
  /** Errors in the form of OAuth 2.0 (RFC 6749, section 5.2) or of JSON-RPC 2.0, whose clients read no other. */
  errors?: 'oauth' | 'json-rpc';
  /** Of a public route: its handler itself looks at a bearer token. */
  readsBearer?: true;
  /** What `WWW-Authenticate` says beyond `Bearer` where a credential is missing or bad. */
  challenge?: (config: Config) => string;
  /** `Authorization: Token` is taken as `Bearer` is, for clients that know no other. */
  tokenScheme?: true;
  /** Pages of this server, and of the machine of a server that only its machine reaches, may call as well as those of CORS_ORIGINS. */
  localPages?: true;
  /** Other paths with the same parameters that lead here; rules about paths see the first. */
  also?: string[];
  /** Also served without `/v1`, as a deprecated alias. */
  legacy?: true;
  /**
   * The handler decides each row it shows or touches (`viewOf`, `isPermitted`, `authorize` with the row). Then a policy
   * may let somebody in for some rows only; without it, who may not do this to something of its own is refused here.
   */
  decidesRows?: true;
  /** Of a body of many rows each row is checked by the handler (`hasUncheckedTexts`), so that a bad text fails its row only. */
  textsLater?: true;
  /** Not part of the published contract. */
  hidden?: true;
  bodyLimit?: number;
  handler: (ctx: Ctx, input: RouteInput<P, Q, B>) => Promise<unknown>;
}

/** A permission that a handler asks for beside that of its route. */
export interface AlsoNeeded {
  permission: Permission;
  /** Where it is asked; left out: always. */
  when?: string;
}

/** A route: path, schemas, declared permission and a one-line handler. */
export type Route<P = unknown, Q = unknown, B = unknown> = Common<P, Q, B> &
  (
    | { permission: Permission; alsoNeeds?: AlsoNeeded[]; public?: never; forwards?: never }
    /** Whoever has a credential: all that is done with it, is done by other routes, which ask their own permissions. */
    | { forwards: true; permission?: never; alsoNeeds?: never; public?: never }
    /** `true`: anybody; credentials are not looked at. `optional`: anybody, and a credential that is sent must be good. */
    | { public: true | 'optional'; permission?: never; alsoNeeds?: never; forwards?: never }
  );

/** Declares a route; the types of params, query and body follow from their schemas. */
export function route<
  P extends TSchema | undefined = undefined,
  Q extends TSchema | undefined = undefined,
  B extends TSchema | undefined = undefined,
>(definition: Route<P, Q, B>): Route {
  return definition as unknown as Route;
}

/** `create_identity_v1_identity_post`: name, path and method joined as FastAPI's default does. */
export const operationIdOf = ({ operationId, name, path, method }: Route): string =>
  operationId ??
  `${name}_${path}_${method.toLowerCase()}`.replace(/:/g, '').replace(/\W+/g, '_').replace(/_+/g, '_');

/** Whether an Idempotency-Key means something to a route, for callers with a credential. */
export const takesIdempotencyKey = ({ method, idempotent, public: isPublic }: Route): boolean =>
  method !== 'GET' && idempotent !== false && isPublic !== true;

export const routeClassOf = (route: Route): RouteClass =>
  route.routeClass ?? (route.method === 'GET' ? 'read' : 'mutation');
