import { Type as T } from 'typebox';
import { route } from '#platform/http/route.ts';
import { selectionOf } from './entities.ts';
import { Add, Entities, EntitiesPage, List, ListPage, Project, Search, Update } from './schema.ts';
import {
  add,
  bareUnless,
  get,
  getEvent,
  history,
  list,
  listBare,
  listNewest,
  projectOf,
  remove,
  removeAll,
  search,
  selectedBy,
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

/**
 * What clients of mem0 call, done by the routes of memories: the paths of its hosted service, which former clients call by
 * `/v1` and `/v2`, and its open-source server's.
 */
export const mem0Routes = [
  route({
    ...door,
    method: 'GET',
    path: '/v1/ping/',
    name: 'mem0_ping',
    summary: 'Whether the key is good',
    // Some clients do not start without an organisation and a project.
    handler: async (ctx) => ({ status: 'ok', ...projectOf(ctx) }),
  }),
  route({
    ...door,
    method: 'POST',
    path: '/v3/memories/add/',
    also: ['/v1/memories/', '/memories'],
    name: 'mem0_add',
    summary: 'Remember the messages of a conversation',
    body: Add,
    handler: (ctx, { body, raw }) => add(sender(ctx, raw), body),
  }),
  route({
    ...door,
    method: 'POST',
    path: '/v3/memories/search/',
    also: ['/search'],
    name: 'mem0_search',
    summary: 'Find memories',
    body: Search,
    handler: (ctx, { body, raw }) => search(ctx, raw, body),
  }),
  route({
    ...door,
    method: 'POST',
    path: '/v2/memories/search/',
    also: ['/v1/memories/search/'],
    name: 'mem0_search_bare',
    summary: 'Find memories, as former clients do',
    body: Search,
    handler: async (ctx, { body, raw }) =>
      bareUnless(body.output_format === 'v1.1', await search(ctx, raw, body)),
  }),
  route({
    ...door,
    method: 'POST',
    path: '/v3/memories/',
    name: 'mem0_list',
    summary: 'Memories, newest first, page by page',
    query: ListPage,
    body: List,
    handler: (ctx, { body, query, raw }) =>
      list(sender(ctx, raw), selectedBy(body), '/v3/memories/', { ...body, ...query }),
  }),
  route({
    ...door,
    method: 'POST',
    path: '/v2/memories/',
    name: 'mem0_list_bare',
    summary: 'The newest memories, or a page of them, as former clients ask',
    query: ListPage,
    body: List,
    handler: (ctx, { body, query, raw }) =>
      listBare(sender(ctx, raw), selectedBy(body), '/v2/memories/', { ...body, ...query }),
  }),
  route({
    ...door,
    method: 'GET',
    path: '/v1/memories/',
    name: 'mem0_list_by_query',
    summary: 'The newest memories of somebody, or a page of them, as former clients ask',
    query: EntitiesPage,
    handler: (ctx, { query, raw }) => listBare(sender(ctx, raw), selectionOf(query), '/v1/memories/', query),
  }),
  route({
    ...door,
    method: 'GET',
    path: '/memories',
    name: 'mem0_list_all',
    summary: 'The newest memories of somebody',
    query: Entities,
    handler: (ctx, { query, raw }) => listNewest(sender(ctx, raw), selectionOf(query)),
  }),
  route({
    ...door,
    method: 'DELETE',
    path: '/v1/memories/',
    also: ['/memories'],
    name: 'mem0_remove_all',
    summary: 'Delete all memories of somebody',
    query: Entities,
    handler: (ctx, { query, raw }) => removeAll(sender(ctx, raw), query),
  }),
  route({
    ...door,
    method: 'GET',
    path: '/v1/memories/:memory_id/',
    also: ['/memories/:memory_id'],
    name: 'mem0_get',
    summary: 'One memory',
    params,
    query: Project,
    handler: (ctx, { params, raw }) => get(sender(ctx, raw), params.memory_id),
  }),
  route({
    ...door,
    method: 'PUT',
    path: '/v1/memories/:memory_id/',
    also: ['/memories/:memory_id'],
    name: 'mem0_update',
    summary: 'Change a memory',
    params,
    query: Project,
    body: Update,
    handler: (ctx, { params, body, raw }) => update(sender(ctx, raw), params.memory_id, body),
  }),
  route({
    ...door,
    method: 'DELETE',
    path: '/v1/memories/:memory_id/',
    also: ['/memories/:memory_id'],
    name: 'mem0_remove',
    summary: 'Delete a memory',
    params,
    query: Project,
    handler: (ctx, { params, raw }) => remove(sender(ctx, raw), params.memory_id),
  }),
  route({
    ...door,
    method: 'GET',
    path: '/v1/memories/:memory_id/history/',
    also: ['/memories/:memory_id/history'],
    name: 'mem0_history',
    summary: 'What a memory was, oldest first',
    params,
    query: Project,
    handler: (ctx, { params, raw }) => history(sender(ctx, raw), params.memory_id),
  }),
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
