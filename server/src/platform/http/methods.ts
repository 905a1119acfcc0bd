import type { FastifyInstance } from 'fastify';
import type { App } from '../context.ts';
import { ApiError } from '../errors.ts';
import { pathOf } from './request-context.ts';
import type { Route } from './route.ts';

type Methods = Route['method'][];

/** 405 with `Allow` (RFC 9110, section 15.5.6). */
export const methodNotAllowed = (allowed: string[]): ApiError => {
  const methods = allowed.join(', ');
  return new ApiError(405, 'METHOD_NOT_ALLOWED', `This path takes ${methods}.`, undefined, {
    allow: methods,
  });
};

/** Methods of the routes whose path fits, for 405. A fixed path is no id of the routes beside it. */
export function allowedMethods(app: App, routes: Route[], url: string): Methods {
  const path = withoutSlash(pathOf(url).slice(0, 2_000));
  const known = patternsOf(app, routes).filter(({ pattern }) => fits(pattern, path));
  const fixed = known.some(({ pattern }) => pattern === path);
  return [
    ...new Set(known.filter(({ pattern }) => !fixed || !swallows(pattern, path)).map(({ method }) => method)),
  ];
}

/** `GET /v1/memory/search` asks for no memory of that id: where a fixed path lacks a method, the route beside it must not take it. */
export function refuseOtherMethods(app: App, server: FastifyInstance, routes: Route[]): void {
  const all = patternsOf(app, routes);
  for (const path of new Set(all.map(({ pattern }) => pattern))) {
    const allowed = allowedMethods(app, routes, path);
    const others = all.filter(({ pattern, method }) => swallows(pattern, path) && !allowed.includes(method));
    for (const method of new Set(others.map((other) => other.method)))
      server.route({
        method,
        url: path,
        schema: { hide: true },
        onRequest: (_request, _reply, done) => done(methodNotAllowed(allowed)),
        handler: async () => undefined,
      });
  }
}

/** Every method with its path, as it is served. */
const patternsOf = ({ config }: App, routes: Route[]): { pattern: string; method: Methods[number] }[] =>
  routes.flatMap(({ path, also, legacy, method }) =>
    [
      path,
      ...(also ?? []),
      legacy && config.LEGACY_ROUTES_ENABLED ? path.replace(/^\/v1/, '') : undefined,
    ].flatMap((one) => (one === undefined ? [] : [{ pattern: withoutSlash(one), method }])),
  );

const fits = (pattern: string, path: string): boolean =>
  new RegExp(`^${pattern.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/:[a-z_]+/g, '[^/]+')}$`).test(path);

/** Whether a path that has no parameter fits this one, whose last part is an id: a UUID, but for those that are text. */
const swallows = (pattern: string, path: string): boolean =>
  !path.includes('/:') && /:(?!(tenant|corpus|document)_id$)[a-z_]+$/.test(pattern) && fits(pattern, path);

/** Character by character: a pattern for this takes quadratic time on a path of slashes. */
function withoutSlash(path: string): string {
  let end = path.length;
  while (end > 1 && path[end - 1] === '/') end -= 1;
  return path.slice(0, end);
}
