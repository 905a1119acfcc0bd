import { type Static, Type as T } from 'typebox';

export const Corpus = T.Object({
  id: T.String(),
  tenant_id: T.String(),
  name: T.String(),
  provider_config_json: T.Record(T.String(), T.Unknown()),
  created_at: T.String(),
  updated_at: T.String(),
});
export type Corpus = Omit<Static<typeof Corpus>, 'provider_config_json'> & {
  provider_config_json: ProviderConfig;
};

export const CorpusCreate = T.Object(
  {
    id: T.Optional(
      T.String({ maxLength: 64, description: '1 to 64 of a-z 0-9 . _ -; made by the server when left out' }),
    ),
    name: T.String({ minLength: 1, maxLength: 200, pattern: '\\S' }),
    provider_config_json: T.Optional(
      T.Record(T.String(), T.Unknown(), { description: '{} means local_pgvector' }),
    ),
  },
  { additionalProperties: false },
);
export type CorpusCreate = Static<typeof CorpusCreate>;

export const CorpusUpdate = T.Object(
  {
    name: T.Optional(CorpusCreate.properties.name),
    provider_config_json: T.Optional(
      T.Record(T.String(), T.Unknown(), { description: 'Replaces the whole; {} means local_pgvector' }),
    ),
  },
  { additionalProperties: false },
);
export type CorpusUpdate = Static<typeof CorpusUpdate>;

/** Who searches a corpus. What is left out is a setting of the server. */
export type Retrieval =
  | { provider: 'local_pgvector'; top_k_default: number }
  | { provider: 'aws_bedrock_kb'; knowledge_base_id: string; region?: string; top_k_default: number }
  | {
      provider: 'gcp_vertex';
      project?: string;
      location?: string;
      resource_id: string;
      top_k_default: number;
    };

/** Where a corpus is searched, as it is stored. */
export interface ProviderConfig {
  retrieval: Retrieval;
}
