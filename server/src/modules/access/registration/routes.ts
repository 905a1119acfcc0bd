import { route } from '#platform/http/route.ts';
import { IdentityCreate, IdentityCreated } from '../identity/service.ts';
import { registerIdentity } from './service.ts';

export const registrationRoutes = [
  route({
    method: 'POST',
    path: '/v1/identity/',
    name: 'create_identity',
    summary: 'Make an identity: in your tenant with a credential, in a new tenant of its own without',
    tag: 'identity',
    public: 'optional',
    operation: 'identity:create',
    body: IdentityCreate,
    response: { 200: IdentityCreated },
    handler: async (ctx, { body }) => registerIdentity(ctx, body),
  }),
];
