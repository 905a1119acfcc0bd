import { Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';
import { type AlsoNeeded, Answer, route } from '#platform/http/route.ts';
import { eraseMemories, getErasure } from './erasure.ts';
import { MemoryErase, MemoryErasure } from './erasure-schema.ts';
import { exportMemories } from './export.ts';
import { historyOf } from './history.ts';
import { ImportOptions, MemoryImport, MemoryLine } from './import-schema.ts';
import { cancelImport, continueUpload, getImport, listVisibleImports, startImport } from './import-upload.ts';
import { Memory, MemoryVersion } from './schema.ts';
import { getSensitiveTypes, setSensitiveTypes } from './sensitive-types.ts';
import { SensitiveTypes, SensitiveTypesSet } from './sensitive-types-schema.ts';
import { restoreMemory } from './trash.ts';

const tag = 'memory';
const memory = T.Object({ memory_id: T.String() });
const oneImport = T.Object({ import_id: T.String() });
const lines = 'application/x-ndjson';
const toImport: AlsoNeeded[] = [
  { permission: 'memory:update', when: 'where a line changes a memory that is there' },
  { permission: 'admin:create', when: 'with preserve_ids' },
];
const { limit, cursor } = pageQuery(100, 1_000);

/** What was, what comes and goes in files, and what goes for good. */
export const lifeRoutes = [
  route({
    method: 'GET',
    path: '/v1/memory/export',
    name: 'export_memories',
    summary: 'All memories the caller may see, one line of JSON each, streamed',
    tag,
    permission: 'memory:list',
    decidesRows: true,
    operation: 'memory:export',
    produces: lines,
    query: T.Object(
      {
        memory_type: T.Optional(T.String({ maxLength: 100 })),
        session_id: T.Optional(T.String({ maxLength: 200 })),
        identity_id: T.Optional(T.String({ maxLength: 100 })),
        history: T.Optional(T.Boolean({ description: 'With all former versions' })),
        after: T.Optional(
          T.String({
            maxLength: 100,
            description: 'The last id of a download that broke off: only what follows',
          }),
        ),
      },
      { additionalProperties: false },
    ),
    response: { 200: MemoryLine },
    handler: (ctx, { query }) => exportMemories(ctx, query),
  }),
  route({
    method: 'POST',
    path: '/v1/memory/import',
    name: 'import_memories',
    summary: 'Import memories from a file of one line of JSON each, in the background',
    tag,
    permission: 'memory:create',
    alsoNeeds: toImport,
    operation: 'memory:import',
    consumes: lines,
    idempotent: 'manual',
    query: ImportOptions,
    body: MemoryLine,
    response: { 202: MemoryImport },
    handler: (ctx, { query, raw }) => startImport(ctx, query, raw),
  }),
  route({
    method: 'GET',
    path: '/v1/memory/imports',
    name: 'list_imports',
    summary: 'Imports the caller may see, newest first',
    tag,
    permission: 'memory:list',
    decidesRows: true,
    query: T.Object(
      {
        ...pageQuery(100, 1_000),
        status: T.Optional(MemoryImport.properties.status),
      },
      { additionalProperties: false },
    ),
    response: { 200: T.Array(MemoryImport) },
    handler: (ctx, { query }) => listVisibleImports(ctx, query),
  }),
  route({
    method: 'GET',
    path: '/v1/memory/imports/:import_id',
    name: 'get_import',
    summary: 'How far an import is, and which lines failed',
    tag,
    permission: 'memory:read',
    decidesRows: true,
    params: oneImport,
    response: { 200: MemoryImport },
    handler: (ctx, { params }) => getImport(ctx, params.import_id),
  }),
  route({
    method: 'PUT',
    path: '/v1/memory/imports/:import_id',
    name: 'continue_import',
    summary: 'Send the rest of a file whose upload was broken off, or more of one sent in parts',
    tag,
    permission: 'memory:create',
    alsoNeeds: toImport,
    decidesRows: true,
    consumes: lines,
    idempotent: false,
    params: oneImport,
    query: T.Object(
      {
        offset: T.Optional(
          T.Integer({
            minimum: 0,
            maximum: Number.MAX_SAFE_INTEGER,
            description: 'Must be received_bytes, which it is when left out',
          }),
        ),
        complete: ImportOptions.properties.complete,
      },
      { additionalProperties: false },
    ),
    body: MemoryLine,
    response: { 202: MemoryImport },
    handler: (ctx, { params, query, raw }) => continueUpload(ctx, params.import_id, query, raw),
  }),
  route({
    method: 'DELETE',
    path: '/v1/memory/imports/:import_id',
    name: 'cancel_import',
    summary: 'Stop an import and drop its file; what it stored stays',
    tag,
    permission: 'memory:create',
    decidesRows: true,
    params: oneImport,
    response: { 200: MemoryImport },
    handler: (ctx, { params }) => cancelImport(ctx, params.import_id),
  }),
  route({
    method: 'POST',
    path: '/v1/memory/erase',
    name: 'erase_memories',
    summary: 'Erase memories with all that was made from them, so that they are not learned again',
    tag,
    permission: 'memory:delete',
    decidesRows: true,
    body: MemoryErase,
    response: { 200: MemoryErasure, 202: MemoryErasure },
    handler: async (ctx, { body }) => {
      const erasure = await eraseMemories(ctx, body);
      return new Answer(erasure.status === 'completed' ? 200 : 202, erasure);
    },
  }),
  route({
    method: 'GET',
    path: '/v1/memory/erasures/:erasure_id',
    name: 'get_erasure',
    summary: 'An erasure and its receipt',
    tag,
    permission: 'memory:read',
    decidesRows: true,
    params: T.Object({ erasure_id: T.String() }),
    response: { 200: MemoryErasure },
    handler: (ctx, { params }) => getErasure(ctx, params.erasure_id),
  }),
  route({
    method: 'GET',
    path: '/v1/memory/:memory_id/history',
    name: 'list_memory_versions',
    summary: 'What a memory was, newest first',
    tag,
    permission: 'memory:read',
    decidesRows: true,
    params: memory,
    query: T.Object({ limit, cursor }, { additionalProperties: false }),
    response: { 200: T.Array(MemoryVersion) },
    handler: (ctx, { params, query }) => historyOf(ctx, params.memory_id, query),
  }),
  route({
    method: 'POST',
    path: '/v1/memory/:memory_id/restore',
    name: 'restore_memory',
    summary: 'Bring a deleted memory back',
    tag,
    permission: 'memory:update',
    alsoNeeds: [{ permission: 'memory:read' }],
    decidesRows: true,
    params: memory,
    response: { 200: Memory },
    handler: (ctx, { params }) => restoreMemory(ctx, params.memory_id),
  }),
  route({
    method: 'GET',
    path: '/v1/admin/memory/sensitive-types',
    name: 'get_sensitive_types',
    summary: 'Which types of memory are always encrypted, and how far what was stored before is',
    tag,
    permission: 'admin:read',
    response: { 200: SensitiveTypes },
    handler: (ctx) => getSensitiveTypes(ctx),
  }),
  route({
    method: 'PUT',
    path: '/v1/admin/memory/sensitive-types',
    name: 'set_sensitive_types',
    summary:
      'Set which types of memory are always encrypted; what was stored before follows in the background',
    tag,
    permission: 'admin:update',
    // Once more changes nothing, and it answers only when every process has heard of what it has committed.
    idempotent: false,
    body: SensitiveTypesSet,
    response: { 200: SensitiveTypes },
    handler: (ctx, { body }) => setSensitiveTypes(ctx, body),
  }),
];
