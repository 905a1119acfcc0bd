import type { FastifyInstance } from 'fastify';
import type { App } from '../context.ts';
import { ApiError } from '../errors.ts';
import { pathOf } from './request-context.ts';
import type { Route } from './route.ts';

/** A path of a route as it is served. */
export interface Served {
  path: string;
  method: Route['method'];
  /** Matches what it takes; undefined for a path without parameters, which takes itself. */
  pattern: RegExp | undefined;
  /** Whether its last part is an id of ours and no word of somebody's: a UUID, but for those of tenants, corpora and documents. */
  endsInId: boolean;
}

/** 405 with `Allow` (RFC 9110, section 15.5.6). */
export const methodNotAllowed = (allowed: string[]): ApiError => {
  const methods = allowed.join(', ');
  return new ApiError(405, 'METHOD_NOT_ALLOWED', `This path takes ${methods}.`, undefined, {
    allow: methods,
  });
};

/** Methods of the routes whose path fits, for 405. */
export const allowedMethods = (all: Served[], url: string): string[] =>
  allowedAt(all, withoutSlash(pathOf(url).slice(0, 2_000)));

/** `GET /v1/memory/search` asks for no memory of that id: where a fixed path lacks a method, the route beside it must not take it. */
export function refuseOtherMethods(server: FastifyInstance, all: Served[]): void {
  for (const path of new Set(all.flatMap((one) => (one.pattern ? [] : [one.path])))) {
    const allowed = allowedAt(all, path);
    const taken = all.filter(
      (one) => one.endsInId && one.pattern?.test(path) && !allowed.includes(one.method),
    );
    for (const method of new Set(taken.map((one) => one.method)))
      server.route({
        method,
        url: path,
        schema: { hide: true },
        onRequest: (_request, _reply, done) => done(methodNotAllowed(allowed)),
        handler: async () => undefined,
      });
  }
}

/** A fixed path is no id of the routes beside it. */
function allowedAt(all: Served[], path: string): string[] {
  const fixed = all.filter((one) => one.path === path);
  const others = all.filter((one) => one.pattern?.test(path) && !(fixed.length > 0 && one.endsInId));
  return [...new Set([...fixed, ...others].map(({ method }) => method))];
}

/** The paths of routes, to be looked at once for a server. */
export const servedBy = ({ config }: App, routes: Route[]): Served[] =>
  routes.flatMap(({ path, also = [], legacy, method }) => {
    const alias = legacy && config.LEGACY_ROUTES_ENABLED ? [path.replace(/^\/v1/, '')] : [];
    return [path, ...also, ...alias].map((one) => served(withoutSlash(one), method));
  });

const served = (path: string, method: Route['method']): Served => ({
  path,
  method,
  pattern: path.includes('/:')
    ? new RegExp(`^${path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/:[a-z_]+/g, '[^/]+')}$`)
    : undefined,
  endsInId: /:(?!(tenant|corpus|document)_id$)[a-z_]+$/.test(path),
});

/** Character by character: a pattern for this takes quadratic time on a path of slashes. */
function withoutSlash(path: string): string {
  let end = path.length;
  while (end > 1 && path[end - 1] === '/') end -= 1;
  return path.slice(0, end);
}
