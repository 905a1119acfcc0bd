import { Type as T } from 'typebox';
import { Answer, route } from '#platform/http/route.ts';
import { listDataKeys, rotateDataKey } from './service.ts';

const tag = 'encryption';
const Nullable = T.Union([T.String(), T.Null()]);

const DataKey = T.Object({
  id: T.String(),
  purpose: T.Union([T.Literal('seal'), T.Literal('hash')]),
  created_at: T.String(),
  retired_at: T.Union([T.String(), T.Null()], {
    description: 'Since then it only opens; it goes when nothing is sealed with it any more',
  }),
});

export const dataKeyRoutes = [
  route({
    method: 'GET',
    path: '/v1/admin/encryption',
    name: 'list_data_keys',
    summary: 'The keys that what is sensitive is encrypted with, oldest first',
    tag,
    permission: 'admin:read',
    response: { 200: T.Array(DataKey) },
    handler: (ctx) => listDataKeys(ctx),
  }),
  route({
    method: 'POST',
    path: '/v1/admin/encryption/rotate',
    name: 'rotate_data_key',
    summary: 'Encrypt with a new key from now on; what there is is encrypted anew in the background',
    tag,
    permission: 'admin:update',
    response: { 202: T.Object({ key_id: T.String(), retired_key_id: Nullable }) },
    handler: async (ctx) => new Answer(202, await rotateDataKey(ctx)),
  }),
];
