import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Actor, App, Ctx, RequestFacts } from '../context.ts';
import type { Db } from '../db/database.ts';
import { isUuid } from '../ids.ts';
import type { Log } from '../log.ts';
import { type Route, routeClassOf } from './route.ts';

/** The Ctx of a request. What few requests use (abort signal, own log) is made when asked for. */
export class RequestContext implements Ctx {
  readonly app: App;
  readonly tenant: string;
  readonly actor: Actor;
  readonly requestId: string;
  readonly request: RequestFacts;
  db: Db;
  private readonly reply: FastifyReply;
  private controller: AbortController | undefined;
  private ownLog: Log | undefined;

  constructor(
    app: App,
    tenant: string,
    actor: Actor,
    request: FastifyRequest,
    reply: FastifyReply,
    route: Route,
  ) {
    this.app = app;
    this.tenant = tenant;
    this.actor = actor;
    this.requestId = request.id;
    this.request = {
      method: request.method,
      path: pathOf(request.url),
      route: route.path,
      canonical_path: canonicalPath(route.path, request.params as Record<string, string>),
      ip: request.ip,
      user_agent: request.headers['user-agent'],
      route_class: routeClassOf(route),
    };
    this.db = app.database.tenant(tenant);
    this.reply = reply;
  }

  /** Aborted when the client goes away before the answer was complete, and when the process shuts down. */
  get signal(): AbortSignal {
    if (!this.controller) {
      const controller = new AbortController();
      this.controller = controller;
      const { raw } = this.reply;
      const leave = () => {
        if (!raw.writableFinished) controller.abort(new Error('the client went away'));
      };
      // The response's close is the disconnect; the request's fires as soon as its body is read.
      if (raw.destroyed) leave();
      else raw.once('close', leave);
    }
    return AbortSignal.any([this.controller.signal, this.app.closing]);
  }

  get log(): Log {
    this.ownLog ??= this.app.log.child({ request_id: this.requestId, tenant_id: this.tenant || undefined });
    return this.ownLog;
  }
}

export const pathOf = (url: string): string => {
  const end = url.indexOf('?');
  return end < 0 ? url : url.slice(0, end);
};

/**
 * The path of a route with its parameters in the one way they can be written. A rule about a path would else be walked
 * round by an unversioned alias, a trailing slash, `%64` for `d`, or a UUID in capitals.
 */
export function canonicalPath(route: string, params: Record<string, string>): string {
  if (!route.includes(':')) return route;
  let parts = partsOf.get(route);
  if (!parts) {
    parts = route.split(/:([a-z_]+)/);
    partsOf.set(route, parts);
  }
  let path = parts[0]!;
  for (let i = 1; i < parts.length; i += 2) {
    const value = params[parts[i]!] ?? '';
    path += (isUuid(value) ? value.toLowerCase() : encodeURIComponent(value)) + parts[i + 1]!;
  }
  return path;
}

/** Routes cut at their parameters: text, name, text, name, text. */
const partsOf = new Map<string, string[]>();
