import { route } from '#platform/http/route.ts';
import { Decision, EvaluationBody, Evaluations, EvaluationsBody, Metadata } from './schema.ts';
import { evaluate, evaluateAll, metadataOf } from './service.ts';

const tag = 'authzen';

/** OpenID AuthZEN Authorization API 1.0: other applications ask, the tenant's policies answer. */
export const authzenRoutes = [
  route({
    method: 'GET',
    path: '/.well-known/authzen-configuration',
    name: 'authzen_configuration',
    summary: 'Where decisions are asked for (AuthZEN 1.0, section 9)',
    tag,
    public: true,
    response: { 200: Metadata },
    handler: async ({ app }) => metadataOf(app),
  }),
  route({
    method: 'POST',
    path: '/access/v1/evaluation',
    name: 'access_evaluation',
    summary: 'May somebody do something (AuthZEN 1.0, section 6)',
    tag,
    permission: 'policy:test',
    routeClass: 'read',
    idempotent: false,
    body: EvaluationBody,
    response: { 200: Decision },
    handler: (ctx, { body }) => evaluate(ctx, body),
  }),
  route({
    method: 'POST',
    path: '/access/v1/evaluations',
    name: 'access_evaluations',
    summary: 'Several such questions in one request (AuthZEN 1.0, section 7)',
    tag,
    permission: 'policy:test',
    routeClass: 'read',
    idempotent: false,
    body: EvaluationsBody,
    response: { 200: Evaluations },
    handler: (ctx, { body }) => evaluateAll(ctx, body),
  }),
];
