import { Type as T } from 'typebox';
import { chargeOperation } from '#platform/http/limits.ts';
import { pageQuery } from '#platform/http/pages.ts';
import { route } from '#platform/http/route.ts';
import {
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
  listVisible,
} from './service.ts';

const tag = 'memory';
const params = T.Object({ memory_id: T.String() });

export const memoryRoutes = [
  route({
    method: 'POST',
    path: '/v1/memory/',
    name: 'create_memory',
    summary: 'Remember something',
    tag,
    permission: 'memory:create',
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
    summary: 'Remember up to 1,000 things; valid ones are stored although others are not',
    tag,
    permission: 'memory:create',
    decidesRows: true,
    bodyLimit: 33_554_432,
    body: MemoryBulkCreate,
    response: { 201: MemoryBulkCreated },
    handler: async (ctx, { body }) => {
      await chargeOperation(ctx, 'memory:create', body.memories.length);
      return createMemories(ctx, body.memories);
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
      const { deleted, missing } = await deleteMemories(
        ctx,
        body.memory_ids,
        body.hard_delete ?? false,
        body.reason,
      );
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
      },
      { additionalProperties: false },
    ),
    response: { 200: T.Array(Memory) },
    handler: (ctx, { query }) => listVisible(ctx, query),
  }),
  route({
    method: 'GET',
    path: '/v1/memory/:memory_id',
    name: 'get_memory',
    summary: 'One memory',
    tag,
    permission: 'memory:read',
    decidesRows: true,
    params,
    response: { 200: Memory },
    handler: (ctx, { params }) => getMemory(ctx, params.memory_id),
  }),
  route({
    method: 'PUT',
    path: '/v1/memory/:memory_id',
    name: 'update_memory',
    summary: 'Change a memory; its version grows',
    tag,
    permission: 'memory:update',
    decidesRows: true,
    params,
    body: MemoryUpdate,
    response: { 200: Memory },
    handler: (ctx, { params, body }) => changeMemory(ctx, params.memory_id, body),
  }),
  route({
    method: 'DELETE',
    path: '/v1/memory/:memory_id',
    name: 'delete_memory',
    summary: 'Forget a memory; hard_delete removes all that was made from it',
    tag,
    permission: 'memory:delete',
    decidesRows: true,
    params,
    query: T.Object(
      { hard_delete: T.Optional(T.Boolean()), hard: T.Optional(T.Boolean()) },
      { additionalProperties: false },
    ),
    response: { 204: null },
    handler: async (ctx, { params, query }) =>
      deleteMemory(ctx, params.memory_id, query.hard_delete ?? query.hard ?? false),
  }),
];
