import { Type as T } from 'typebox';
import { type Route, route } from '#platform/http/route.ts';
import { Add, Entities, List, ListPage, Search, Update } from './schema.ts';
import {
  add,
  get,
  getEvent,
  history,
  list,
  listAll,
  remove,
  removeAll,
  search,
  sender,
  update,
} from './service.ts';

/** What these answer is mem0's contract, not ours. */
const door = {
  tag: 'mem0',
  forwards: true,
  tokenScheme: true,
  hidden: true,
  routeClass: 'read',
  idempotent: false,
  response: { 200: T.Unknown() },
} as const;
const params = T.Object({ memory_id: T.String() });

/** One operation under the path of mem0's hosted service and that of its open-source server. */
const onBoth = (hosted: string, own: string, declare: (path: string) => Route): Route[] =>
  [hosted, own].map(declare);

/** What clients of mem0 call, done by the routes of memories. */
export const mem0Routes: Route[] = [
  route({
    ...door,
    method: 'GET',
    path: '/v1/ping/',
    name: 'mem0_ping',
    summary: 'Whether the key is good',
    handler: async () => ({ status: 'ok' }),
  }),
  ...onBoth('/v3/memories/add/', '/memories', (path) =>
    route({
      ...door,
      method: 'POST',
      path,
      name: 'mem0_add',
      summary: 'Remember the messages of a conversation',
      body: Add,
      handler: (ctx, { body, raw }) => add(sender(ctx, raw), body),
    }),
  ),
  ...onBoth('/v3/memories/search/', '/search', (path) =>
    route({
      ...door,
      method: 'POST',
      path,
      name: 'mem0_search',
      summary: 'Find memories',
      body: Search,
      handler: (ctx, { body, raw }) => search(sender(ctx, raw), body),
    }),
  ),
  route({
    ...door,
    method: 'POST',
    path: '/v3/memories/',
    name: 'mem0_list',
    summary: 'Memories, newest first, page by page',
    query: ListPage,
    body: List,
    handler: (ctx, { body, query, raw }) => list(sender(ctx, raw), body, query),
  }),
  route({
    ...door,
    method: 'GET',
    path: '/memories',
    name: 'mem0_list_all',
    summary: 'The newest memories of somebody',
    query: Entities,
    handler: (ctx, { query, raw }) => listAll(sender(ctx, raw), query),
  }),
  ...onBoth('/v1/memories/', '/memories', (path) =>
    route({
      ...door,
      method: 'DELETE',
      path,
      name: 'mem0_remove_all',
      summary: 'Delete all memories of somebody',
      query: Entities,
      handler: (ctx, { query, raw }) => removeAll(sender(ctx, raw), query),
    }),
  ),
  ...onBoth('/v1/memories/:memory_id/', '/memories/:memory_id', (path) =>
    route({
      ...door,
      method: 'GET',
      path,
      name: 'mem0_get',
      summary: 'One memory',
      params,
      handler: (ctx, { params, raw }) => get(sender(ctx, raw), params.memory_id),
    }),
  ),
  ...onBoth('/v1/memories/:memory_id/', '/memories/:memory_id', (path) =>
    route({
      ...door,
      method: 'PUT',
      path,
      name: 'mem0_update',
      summary: 'Change a memory',
      params,
      body: Update,
      handler: (ctx, { params, body, raw }) => update(sender(ctx, raw), params.memory_id, body),
    }),
  ),
  ...onBoth('/v1/memories/:memory_id/', '/memories/:memory_id', (path) =>
    route({
      ...door,
      method: 'DELETE',
      path,
      name: 'mem0_remove',
      summary: 'Delete a memory',
      params,
      handler: (ctx, { params, raw }) => remove(sender(ctx, raw), params.memory_id),
    }),
  ),
  ...onBoth('/v1/memories/:memory_id/history/', '/memories/:memory_id/history', (path) =>
    route({
      ...door,
      method: 'GET',
      path,
      name: 'mem0_history',
      summary: 'What a memory was, oldest first',
      params,
      handler: (ctx, { params, raw }) => history(sender(ctx, raw), params.memory_id),
    }),
  ),
  route({
    ...door,
    method: 'GET',
    path: '/v1/event/:event_id/',
    name: 'mem0_event',
    summary: 'What has become of an add',
    params: T.Object({ event_id: T.String() }),
    handler: (ctx, { params, raw }) => getEvent(sender(ctx, raw), params.event_id),
  }),
];
