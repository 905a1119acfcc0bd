import { Type as T, type TObject, type TSchema } from 'typebox';
import type { Permission } from '#platform/context.ts';
import type { ForwardedReply, ForwardedRequest } from '#platform/http/forward.ts';
import { validator } from '#platform/http/validate.ts';
import { Myself } from '../../access/identity/service.ts';
import { Corpus } from '../corpora/service.ts';
import { ChunkSearch, DocumentAccepted, RetrievedChunk, TextIngest } from '../documents/service.ts';
import { Memory, MemoryCreate, MemorySearch, MemoryUpdate } from '../memory/service.ts';
import { answerTool } from './ask.ts';

type Arguments = Record<string, unknown>;

/** What a client is told while a call goes on. */
export interface Progress {
  first: string;
  /** What a piece of the route's stream shows; undefined where it shows nothing new. */
  after: (piece: string) => string | undefined;
}

/** What a model may call, as the route of ours that does it. */
export interface Tool {
  name: string;
  title: string;
  description: string;
  /** What the route asks for. Who may not have it, is not told of the tool. */
  permission: Permission;
  annotations: { readOnlyHint: boolean; destructiveHint?: boolean; idempotentHint?: boolean };
  input: TObject;
  output: TObject;
  request: (given: Arguments) => ForwardedRequest;
  /** Where its work takes long: how far it is. */
  progress?: Progress;
  /** What the route answered, as `output` has it. */
  result: (reply: ForwardedReply, given: Arguments) => Record<string, unknown>;
}

const closed = { additionalProperties: false };
const objectOf = (properties: Record<string, TSchema>) => T.Object(properties, closed);

/** What tools show of a memory: no second name of a field, nothing that only programs ask. */
const ShownMemory = T.Pick(Memory, [
  'id',
  'identity_id',
  'text',
  'type',
  'metadata',
  'session_id',
  'role',
  'occurred_at',
  'score',
  'version',
  'expires_at',
  'sensitive',
  'created_at',
  'updated_at',
  'duplicates',
  'contradictions',
]);
const ShownPassage = T.Pick(RetrievedChunk, [
  'id',
  'document_id',
  'source',
  'text',
  'score',
  'heading_path',
  'filename',
  'page_start',
  'page_end',
  'document_metadata',
]);
const ShownIdentity = T.Object({
  identity_id: T.String(),
  ...T.Pick(Myself, ['external_id', 'role', 'name', 'description', 'tenant_id', 'delegation']).properties,
});
const ShownCorpus = T.Pick(Corpus, ['id', 'name', 'created_at', 'updated_at']);

/** The fields of a row that a schema has. */
const shown = (schema: TObject, row: unknown): Record<string, unknown> => {
  const known = row as Record<string, unknown>;
  return Object.fromEntries(
    Object.keys(schema.properties).flatMap((name) => (name in known ? [[name, known[name]]] : [])),
  );
};
const dataIn = ({ body }: ForwardedReply): unknown => (body as { data: unknown }).data;

const memory_id = T.String({
  minLength: 1,
  maxLength: 100,
  description: 'Id of a memory, as recall shows it',
});
const idempotency_key = T.Optional(
  T.String({
    minLength: 1,
    maxLength: 128,
    description: 'Chosen by you: a repeated call with the same key and arguments is done once (24 hours)',
  }),
);
const keyed = ({
  idempotency_key: key,
  ...body
}: Arguments): { body: Arguments; headers: Record<string, string> } => ({
  body,
  headers: key === undefined ? {} : { 'idempotency-key': key as string },
});
const pathOf = (...parts: unknown[]) =>
  `/v1/${parts.map((part) => encodeURIComponent(String(part))).join('/')}`;

const writing = { readOnlyHint: false, destructiveHint: false, idempotentHint: false };
const reading = { readOnlyHint: true };

export const tools: Tool[] = [
  {
    name: 'whoami',
    permission: 'identity:read',
    title: 'Who am I',
    description: 'The identity you act as: its id is the identity_id of your memories.',
    annotations: reading,
    input: objectOf({}),
    output: ShownIdentity,
    request: () => ({ method: 'GET', path: '/v1/identity/me' }),
    result: ({ body }) => ({ ...shown(ShownIdentity, body), identity_id: (body as { id: string }).id }),
  },
  {
    name: 'remember',
    permission: 'memory:create',
    title: 'Remember',
    description:
      'Store something worth knowing later: a fact, a preference, a decision. One thing a call, in words that stand alone.',
    annotations: writing,
    input: objectOf({
      ...T.Omit(MemoryCreate, ['meta_data', 'infer', 'relearn']).properties,
      type: T.Optional(
        T.String({
          minLength: 1,
          maxLength: 100,
          pattern: '\\S',
          description: 'A word of your own for its kind; default note',
        }),
      ),
      idempotency_key,
    }),
    output: ShownMemory,
    request: (given) => {
      const { body, headers } = keyed(given);
      return { method: 'POST', path: '/v1/memory/', body: { type: 'note', ...body }, headers };
    },
    result: ({ body }) => shown(ShownMemory, body),
  },
  {
    name: 'recall',
    permission: 'memory:search',
    title: 'Recall',
    description: 'Find memories by meaning and words, best first. Nothing found is an empty list.',
    annotations: reading,
    input: objectOf({
      ...T.Omit(MemorySearch, ['explain']).properties,
      identity_id: T.Optional(
        T.String({
          maxLength: 100,
          description:
            'Whose memories; whoami tells yours. Left out: all you may see, and no sensitive ones of others',
        }),
      ),
    }),
    output: T.Object({ memories: T.Array(ShownMemory) }),
    request: (body) => ({ method: 'POST', path: '/v1/memory/search', body }),
    result: ({ body }) => ({ memories: (body as unknown[]).map((row) => shown(ShownMemory, row)) }),
  },
  {
    name: 'update_memory',
    permission: 'memory:update',
    title: 'Update a memory',
    description:
      'Change a memory that has become wrong or incomplete. What it was is kept as a former version. Metadata is replaced as a whole.',
    annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false },
    input: objectOf({ memory_id, ...T.Omit(MemoryUpdate, ['meta_data']).properties, idempotency_key }),
    output: ShownMemory,
    request: ({ memory_id, ...rest }) => ({
      method: 'PUT',
      path: pathOf('memory', memory_id),
      ...keyed(rest),
    }),
    result: ({ body }) => shown(ShownMemory, body),
  },
  {
    name: 'forget',
    permission: 'memory:delete',
    title: 'Forget',
    description:
      'Delete a memory. It can be restored for a while, unless it is removed for good with all that was made from it.',
    annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
    input: objectOf({
      memory_id,
      for_good: T.Optional(T.Boolean({ description: 'Remove it now, with its history; default false' })),
    }),
    output: T.Object({ memory_id: T.String(), forgotten: T.Boolean() }),
    request: ({ memory_id, for_good }) => ({
      method: 'DELETE',
      path: pathOf('memory', memory_id),
      query: { hard_delete: for_good },
    }),
    result: (_reply, { memory_id }) => ({ memory_id, forgotten: true }),
  },
  {
    name: 'list_corpora',
    permission: 'corpora:list',
    title: 'List corpora',
    description: 'The bodies of documents that can be searched and asked, newest first.',
    annotations: reading,
    input: objectOf({
      limit: T.Optional(T.Integer({ minimum: 1, maximum: 100, default: 25 })),
      cursor: T.Optional(T.String({ maxLength: 1_000, description: 'next_cursor of the page before' })),
    }),
    output: T.Object({ corpora: T.Array(ShownCorpus), next_cursor: T.Union([T.String(), T.Null()]) }),
    request: (query) => ({ method: 'GET', path: '/v1/corpora', query }),
    result: (reply) => ({
      corpora: (dataIn(reply) as unknown[]).map((row) => shown(ShownCorpus, row)),
      next_cursor: (reply.headers['x-next-cursor'] as string | undefined) ?? null,
    }),
  },
  {
    name: 'search_knowledge',
    permission: 'documents:read',
    title: 'Search knowledge',
    description: 'Find the passages of a corpus that answer a query, best first, with their source and page.',
    annotations: reading,
    input: objectOf({
      corpus_id: T.String({ minLength: 1, maxLength: 64, description: 'As list_corpora shows it' }),
      ...T.Omit(ChunkSearch, ['explain']).properties,
    }),
    output: T.Object({ passages: T.Array(ShownPassage) }),
    request: ({ corpus_id, ...body }) => ({
      method: 'POST',
      path: pathOf('corpora', corpus_id, 'search'),
      body,
    }),
    result: (reply) => ({ passages: (dataIn(reply) as unknown[]).map((row) => shown(ShownPassage, row)) }),
  },
  {
    name: 'ingest_document',
    permission: 'documents:create',
    title: 'Ingest a document',
    description:
      'Store a text as a document of a corpus. It can be searched a moment later, when it has been cut and indexed.',
    annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false },
    input: objectOf({
      ...T.Omit(TextIngest, ['chunk_size_chars', 'chunk_overlap_chars']).properties,
      idempotency_key,
    }),
    output: DocumentAccepted,
    request: (given) => ({ method: 'POST', path: '/v1/documents/text', ...keyed(given) }),
    result: (reply) => shown(DocumentAccepted, dataIn(reply)),
  },
  answerTool,
];

const byName = new Map(
  tools.map((tool) => [
    tool.name,
    { tool, check: validator(tool.input, 'body') as (given: unknown) => Arguments },
  ]),
);

export const toolOf = (name: string) => byName.get(name);

/** A tool as clients are told of it (MCP, `tools/list`). */
export const described = ({ name, title, description, annotations, input, output }: Tool) => ({
  name,
  title,
  description,
  annotations: { ...annotations, openWorldHint: false },
  inputSchema: input as TObject & { type: 'object' },
  outputSchema: output as TObject & { type: 'object' },
});
