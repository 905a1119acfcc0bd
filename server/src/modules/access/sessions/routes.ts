import { Type as T } from 'typebox';
import { route } from '#platform/http/route.ts';
import { publishedKeys } from './tokens.ts';

export const sessionRoutes = [
  route({
    method: 'GET',
    path: '/.well-known/jwks.json',
    name: 'jwks',
    summary: 'Public keys of access tokens (RFC 7517)',
    tag: 'sessions',
    public: true,
    response: { 200: T.Object({ keys: T.Array(T.Record(T.String(), T.Unknown())) }) },
    handler: async ({ app }) => publishedKeys(app),
  }),
];
