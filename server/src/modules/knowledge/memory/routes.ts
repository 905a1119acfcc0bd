import { Type as T } from 'typebox';
import { ApiError, invalid } from '#platform/errors.ts';
import { hasUncheckedTexts } from '#platform/http/json.ts';
import { chargeOperation } from '#platform/http/limits.ts';
import { pageQuery } from '#platform/http/pages.ts';
import { type AlsoNeeded, route } from '#platform/http/route.ts';
import { Timestamp } from '#platform/timestamp.ts';
import type { BulkCreated } from './create.ts';
import { getMemoryAsOf, listVisibleAsOf } from './history.ts';
import { rememberConversation } from './inferences.ts';
import { lifeRoutes } from './life-routes.ts';
import {
  ConversationInfer,
  ConversationInferred,
  Memory,
  MemoryBulkCreate,
  MemoryBulkCreated,
  MemoryBulkDelete,
  MemoryBulkDeleted,
  MemoryCreate,
  MemorySearch,
  MemoryUpdate,
} from './schema.ts';
import { searchMemories } from './search.ts';
import {
  changeMemory,
  createMemories,
  createMemory,
  deleteMemories,
  deleteMemory,
  getMemory,
  isForGood,
  listVisible,
} from './service.ts';
import { listVisibleDeleted } from './trash.ts';

const tag = 'memory';
const params = T.Object({ memory_id: T.String() });
const asOf = T.Optional(Timestamp);

const toCreate: AlsoNeeded[] = [
  { permission: 'memory:search', when: 'to be told of any with check' },
  { permission: 'admin:update', when: 'with relearn' },
];

/** A 2xx says that something was made. What is wrong with each is told as in the answer to others. */
const nothingStored = (details: BulkCreated) =>
  new ApiError(422, 'NOTHING_STORED', 'None of the memories could be stored: see failed.', { ...details });

export const memoryRoutes = [
  route({
    method: 'POST',
    path: '/v1/memory/',
    name: 'create_memory',
    summary: 'Remember something',
    tag,
    permission: 'memory:create',
    alsoNeeds: toCreate,
    decidesRows: true,
    operation: 'memory:create',
    body: MemoryCreate,
    response: { 201: Memory },
    handler: (ctx, { body }) => createMemory(ctx, body),
  }),
  route({
    method: 'POST',
    path: '/v1/memory/bulk',
    name: 'create_memories',
    summary:
      'Remember up to 1,000 things; valid ones are stored although others are not. 422 where none could be stored',
    tag,
    permission: 'memory:create',
    alsoNeeds: toCreate,
    decidesRows: true,
    bodyLimit: 33_554_432,
    textsLater: true,
    body: MemoryBulkCreate,
    response: { 201: MemoryBulkCreated },
    handler: async (ctx, { body }) => {
      await chargeOperation(ctx, 'memory:create', body.memories.length);
      const made = await createMemories(ctx, body.memories, hasUncheckedTexts(body));
      if (made.created.length === 0) throw nothingStored(made);
      return made;
    },
  }),
  route({
    method: 'POST',
    path: '/v1/memory/infer',
    name: 'infer_memories',
    summary: 'Remember the messages of a conversation, and have facts inferred from them in the background',
    tag,
    permission: 'memory:create',
    decidesRows: true,
    body: ConversationInfer,
    response: { 202: ConversationInferred },
    handler: async (ctx, { body }) => {
      await chargeOperation(ctx, 'memory:create', body.messages.length);
      return rememberConversation(ctx, body);
    },
  }),
  route({
    method: 'POST',
    path: '/v1/memory/search',
    name: 'search_memories',
    summary: 'Find memories by meaning and words',
    tag,
    permission: 'memory:search',
    decidesRows: true,
    routeClass: 'read',
    operation: 'memory:search',
    idempotent: false,
    body: MemorySearch,
    response: { 200: T.Array(Memory) },
    handler: (ctx, { body }) => searchMemories(ctx, body),
  }),
  route({
    method: 'POST',
    path: '/v1/memory/bulk-delete',
    name: 'bulk_delete_memories',
    summary: 'Delete many memories',
    tag,
    permission: 'memory:delete',
    decidesRows: true,
    body: MemoryBulkDelete,
    response: { 200: MemoryBulkDeleted },
    handler: async (ctx, { body }) => {
      const { deleted, missing } = await deleteMemories(ctx, body.memory_ids, body.hard_delete ?? false, {
        reason: body.reason,
      });
      return {
        deleted_count: deleted.length,
        failed_count: missing.length,
        failed_memories: missing.map((id) => ({
          memory_id: id,
          error: 'Memory not found or not accessible',
        })),
        message: `Bulk delete completed: ${deleted.length} deleted, ${missing.length} failed`,
      };
    },
  }),
  route({
    method: 'GET',
    path: '/v1/memory/',
    name: 'list_memories',
    summary: 'Memories the caller may see, newest first',
    tag,
    permission: 'memory:list',
    decidesRows: true,
    query: T.Object(
      {
        ...pageQuery(100, 1_000),
        memory_type: T.Optional(T.String({ maxLength: 100 })),
        session_id: T.Optional(T.String({ maxLength: 200 })),
        identity_id: T.Optional(
          T.String({ maxLength: 100, description: 'Those of one identity, for who sees those of others' }),
        ),
        metadata: T.Optional(
          T.String({
            maxLength: 4_000,
            description: 'A JSON object: those whose metadata contains it, as they are now',
          }),
        ),
        as_of: asOf,
        deleted: T.Optional(T.Boolean({ description: 'Those that were deleted and can be restored' })),
      },
      { additionalProperties: false },
    ),
    response: { 200: T.Array(Memory) },
    handler: (ctx, { query: { as_of, deleted, ...query } }) => {
      if (as_of === undefined && !deleted) return listVisible(ctx, query);
      if (query.metadata !== undefined)
        throw invalid([{ path: '/metadata', message: 'can not be given together with as_of or deleted' }]);
      if (as_of === undefined) return listVisibleDeleted(ctx, query);
      if (deleted) throw invalid([{ path: '/deleted', message: 'can not be given together with as_of' }]);
      return listVisibleAsOf(ctx, { ...query, as_of });
    },
  }),
  ...lifeRoutes,
  route({
    method: 'GET',
    path: '/v1/memory/:memory_id',
    name: 'get_memory',
    summary: 'One memory',
    tag,
    permission: 'memory:read',
    decidesRows: true,
    params,
    query: T.Object({ as_of: asOf }, { additionalProperties: false }),
    response: { 200: Memory },
    handler: (ctx, { params, query }) =>
      query.as_of === undefined
        ? getMemory(ctx, params.memory_id)
        : getMemoryAsOf(ctx, params.memory_id, query.as_of),
  }),
  route({
    method: 'PUT',
    path: '/v1/memory/:memory_id',
    name: 'update_memory',
    summary: 'Change a memory; its version grows, and what it was is kept. Takes If-Match with a version',
    tag,
    permission: 'memory:update',
    alsoNeeds: [{ permission: 'memory:read' }],
    decidesRows: true,
    params,
    body: MemoryUpdate,
    response: { 200: Memory },
    handler: (ctx, { params, body, raw }) =>
      changeMemory(ctx, params.memory_id, body, raw.headers['if-match']),
  }),
  route({
    method: 'DELETE',
    path: '/v1/memory/:memory_id',
    name: 'delete_memory',
    summary: 'Forget a memory; hard_delete removes all that was made from it. Takes If-Match with a version',
    tag,
    permission: 'memory:delete',
    decidesRows: true,
    params,
    query: T.Object(
      { hard_delete: T.Optional(T.Boolean()), hard: T.Optional(T.Boolean()) },
      { additionalProperties: false },
    ),
    response: { 204: null },
    handler: async (ctx, { params, query, raw }) =>
      deleteMemory(ctx, params.memory_id, isForGood(query), raw.headers['if-match']),
  }),
];
