import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Actor, App, Ctx, RequestFacts, RouteClass } from '../context.ts';
import type { Db } from '../db/database.ts';
import type { Log } from '../log.ts';

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
    routeClass: RouteClass,
  ) {
    this.app = app;
    this.tenant = tenant;
    this.actor = actor;
    this.requestId = request.id;
    this.request = {
      method: request.method,
      path: pathOf(request.url),
      ip: request.ip,
      user_agent: request.headers['user-agent'],
      route_class: routeClass,
    };
    this.db = app.database.tenant(tenant);
    this.reply = reply;
  }

  /** Aborted when the client goes away before the answer was complete, and when the process shuts down. */
  get signal(): AbortSignal {
    if (!this.controller) {
      const controller = new AbortController();
      this.controller = controller;
      // The response's close is the disconnect; the request's fires as soon as its body is read.
      this.reply.raw.once('close', () => {
        if (!this.reply.raw.writableFinished) controller.abort(new Error('the client went away'));
      });
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
