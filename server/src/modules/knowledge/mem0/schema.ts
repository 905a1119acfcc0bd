import { type Static, Type as T, type TSchema } from 'typebox';
import { MemoryCreate, MemorySearch, Metadata } from '../memory/service.ts';

const closed = { additionalProperties: false };
const orNull = <S extends TSchema>(schema: S) => T.Optional(T.Union([schema, T.Null()]));
const name = (description?: string) =>
  T.String({ minLength: 1, maxLength: 200, pattern: '\\S', ...(description ? { description } : {}) });

/** Whose memories: names a client gives, within what the caller may see. */
const entities = {
  user_id: orNull(name()),
  agent_id: orNull(name()),
  app_id: orNull(name()),
  run_id: orNull(name('The session of the memory')),
};
/** What `ping` told a client of its organisation and project, which former clients say with each request. */
const project = { org_id: orNull(name()), project_id: orNull(name()) };
export const Project = T.Object(project, closed);
export const Entities = T.Object({ ...entities, ...project }, closed);
export type Entities = Static<typeof Entities>;

const Role = T.Union([T.Literal('user'), T.Literal('assistant'), T.Literal('system'), T.Literal('tool')]);
const Message = T.Object({ role: Role, content: MemoryCreate.properties.text, name: orNull(name()) }, closed);

/** Fields that say how mem0 itself works; here they change nothing, with the values that promise nothing else. */
const ofNoEffect = {
  version: orNull(T.Union([T.Literal('v1'), T.Literal('v2')])),
  output_format: orNull(T.Literal('v1.1')),
  ...project,
  async_mode: orNull(T.Boolean()),
  enable_graph: orNull(T.Literal(false)),
  rerank: orNull(T.Boolean()),
  keyword_search: orNull(T.Boolean()),
  latest_only: orNull(T.Boolean()),
  source: orNull(name()),
};

export const Add = T.Object(
  {
    messages: T.Union([T.Array(Message, { minItems: 1, maxItems: 100 }), MemoryCreate.properties.text]),
    ...entities,
    metadata: orNull(Metadata),
    infer: T.Optional(
      T.Boolean({ description: 'Infer facts from the messages, in the background; default true' }),
    ),
    expiration_date: orNull(T.String({ pattern: '^\\d{4}-\\d{2}-\\d{2}$' })),
    timestamp: orNull(T.Integer({ minimum: 0, maximum: 253_402_300_799, description: 'Seconds since 1970' })),
    ...ofNoEffect,
  },
  closed,
);
export type Add = Static<typeof Add>;

const Filters = T.Record(T.String({ maxLength: 200 }), T.Unknown(), {
  maxProperties: 20,
  description: 'user_id, agent_id, app_id, run_id and metadata, each with the value it has; AND of such',
});

/** Where former clients ask: `v1.1` answers with `results`, else there is nothing round the list. */
const output_format = orNull(T.Union([T.Literal('v1.0'), T.Literal('v1.1')]));

export const Search = T.Object(
  {
    query: MemorySearch.properties.query,
    filters: orNull(Filters),
    ...entities,
    top_k: orNull(T.Integer({ minimum: 1, maximum: 100 })),
    limit: orNull(T.Integer({ minimum: 1, maximum: 100 })),
    threshold: orNull(T.Number({ minimum: 0, maximum: 1 })),
    ...ofNoEffect,
    filter_memories: orNull(T.Literal(false)),
    output_format,
  },
  closed,
);
export type Search = Static<typeof Search>;

const page = {
  page: T.Optional(T.Integer({ minimum: 1, maximum: 1_000 })),
  page_size: T.Optional(T.Integer({ minimum: 1, maximum: 100 })),
};
export const List = T.Object(
  { filters: orNull(Filters), ...entities, ...page, ...ofNoEffect, output_format },
  closed,
);
export type List = Static<typeof List>;

export const ListPage = T.Object(page, closed);
export type ListPage = Static<typeof ListPage>;

export const EntitiesPage = T.Object({ ...Entities.properties, ...page, output_format }, closed);

export const Update = T.Object(
  {
    text: T.Optional(MemoryCreate.properties.text),
    metadata: orNull(Metadata),
    expiration_date: Add.properties.expiration_date,
    timestamp: Add.properties.timestamp,
  },
  closed,
);
export type Update = Static<typeof Update>;
