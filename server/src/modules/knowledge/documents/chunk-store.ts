import { binaryArray, type VectorTypes } from '#platform/db/binary.ts';
import type { Db } from '#platform/db/database.ts';
import { raw, type Statement, sql } from '#platform/db/sql.ts';
import { type PreparedQuery, type StoredWeights, weightColumns } from '../retrieval/service.ts';
import type { EmbeddedText, NewVectors, VectorView, WordSearch } from '../vectors/service.ts';
import type { RetrievedChunk } from './schema.ts';

/** A chunk as it is stored, its weights in pgvector's binary form. */
export interface ChunkRow {
  id: string;
  position: number;
  text: string;
  /** What search reads before the text: title and headings, with the blank line that ends them. */
  above: string;
  heading_path: string[];
  offset_start: number;
  offset_end: number;
  page_start: number | null;
  page_end: number | null;
  words: Buffer;
  trigrams: Buffer;
}

/** Chunks of one document. Their vectors are stored beside them. */
export function insertChunks(
  tenant: string,
  document: { id: string; corpus_id: string },
  rows: ChunkRow[],
  types: VectorTypes,
): Statement[] {
  const column = <K extends keyof ChunkRow>(name: K) => rows.map((row) => row[name]);
  const ids = column('id');
  return [
    sql`
      insert into chunks (tenant_id, id, document_id, corpus_id, position, text, above, heading_path, offset_start, offset_end,
        page_start, page_end, words, trigrams)
      select ${tenant}, r.id, ${document.id}, ${document.corpus_id}, r.position, r.text, r.above, r.heading_path::jsonb,
        r.offset_start, r.offset_end, r.page_start, r.page_end, r.words, r.trigrams
      from unnest(${ids}::uuid[], ${column('position')}::int[], ${column('text')}::text[], ${column('above')}::text[],
        ${rows.map(({ heading_path }) => JSON.stringify(heading_path))}::text[], ${column('offset_start')}::int[],
        ${column('offset_end')}::int[], ${column('page_start')}::int[], ${column('page_end')}::int[],
        ${binaryArray(types.sparsevec, column('words'))}::sparsevec[],
        ${binaryArray(types.sparsevec, column('trigrams'))}::sparsevec[])
        as r (id, position, text, above, heading_path, offset_start, offset_end, page_start, page_end, words, trigrams)
      returning 1`,
  ];
}

/** Vectors of one model. They come into the tail, also where an older one was in a segment. */
export const insertVectors = (
  tenant: string,
  corpusId: string,
  { model, ids, vectors, refusedBy }: NewVectors,
): Statement => sql`
  insert into chunk_vectors (tenant_id, chunk_id, corpus_id, model, embedding, refused_by)
  select ${tenant}, r.id, ${corpusId}, ${model}, r.embedding, r.refused_by
  from unnest(${ids}::uuid[], ${vectors}::vector[], ${refusedBy}::text[]) as r (id, embedding, refused_by)
  on conflict (tenant_id, chunk_id, model) do update
    set embedding = excluded.embedding, refused_by = excluded.refused_by, segment = null`;

/** All chunks of a document with their vectors, and what segments have copied of these. */
export const deleteChunks = (tenant: string, scope: string, documentId: string): Statement[] => [
  sql`
    select forget_in_segments(${tenant}, ${scope}, array(
      select id from chunks where tenant_id = ${tenant} and document_id = ${documentId}))`,
  sql`
    delete from chunk_vectors v using chunks c
    where v.tenant_id = ${tenant} and c.tenant_id = ${tenant} and c.document_id = ${documentId} and v.chunk_id = c.id`,
  sql`delete from chunks where tenant_id = ${tenant} and document_id = ${documentId}`,
];

/** Keeps to a corpus among the vectors v. */
export const vectorsOfCorpus = (corpusId: string): Statement => sql`and v.corpus_id = ${corpusId}`;

/** What was indexed of chunks. They never change: an id is one text. */
export const readTexts = (db: Db, ids: string[]): Promise<EmbeddedText[]> =>
  db.rows(sql<EmbeddedText>`
    select id, above || text as text, 1 as version from chunks
    where tenant_id = ${db.tenant} and id = any(${ids}::uuid[])`);

/** Which chunks are still there. Whoever holds the corpus' content keeps them so. */
export async function findPresent(tx: Db, ids: string[]): Promise<Set<string>> {
  const rows = await tx.rows(sql<{ id: string }>`
    select id from chunks where tenant_id = ${tx.tenant} and id = any(${ids}::uuid[])`);
  return new Set(rows.map(({ id }) => id));
}

/** The weights of all that was indexed of a document, in order; `after` is the last position read, -1 at first. */
export const listIndexed = (
  db: Db,
  documentId: string,
  after: number,
  limit: number,
): Promise<({ position: number } & StoredWeights)[]> =>
  db.rows(sql<{ position: number } & StoredWeights>`
    select position, ${weightColumns} from chunks
    where tenant_id = ${db.tenant} and document_id = ${documentId} and position > ${after} order by position limit ${limit}`);

/** The only documents a search looks at, or the ones it does not look at. */
export interface DocumentScope {
  only?: string[];
  /** A statement that answers their ids. */
  among?: Statement;
  except?: string[];
}

// As a set, not as a list: a plan that is made once compares a list one by one, 10,000 times for each chunk.
const within = ({ only, among, except }: DocumentScope = {}): Statement => sql`true
  ${only ? sql`and c.document_id in (select unnest(${only}::text[]))` : raw('')}
  ${among ? sql`and c.document_id in (${among})` : raw('')}
  ${except ? sql`and c.document_id not in (select unnest(${except}::text[]))` : raw('')}`;

export interface FoundChunk extends Omit<RetrievedChunk, 'explain'> {
  /** What was indexed: title and headings before the text. */
  indexed: string;
  /** Inner products with the query; absent for chunks found by their vector alone. */
  words?: number;
  trigrams?: number;
  cosine?: number;
  considered?: number;
}

/** Longest list by words and by trigrams, and how many of them are read and re-ranked: more than any answer holds. */
const byWords = 200;
const byTrigrams = 100;
const read = 64;

const shown = sql`
  c.id, c.document_id, c.corpus_id, c.text, c.above || c.text as indexed, c.heading_path, c.offset_start, c.offset_end,
  c.page_start, c.page_end, c.position, 'document://' || c.document_id as source, d.filename, d.content_type,
  d.metadata_json as document_metadata`;

/** How a search by words looks for the most promising chunks of a corpus. */
export const wordSearch = (
  tenant: string,
  corpusId: string,
  prepared: PreparedQuery,
  documents: DocumentScope | undefined,
): WordSearch<FoundChunk> => ({
  byWords,
  byTrigrams,
  statement: (hits) =>
    rankedCandidates(
      tenant,
      corpusId,
      prepared,
      documents,
      hits ?? allHits(tenant, corpusId, prepared, documents),
    ),
});

const visible = (corpusId: string, documents: DocumentScope | undefined): Statement => sql`
  and c.corpus_id = ${corpusId}
  and ${within(documents)}`;

/** The best by words, and by likeness of spelling when the query needs it, among all that may be seen. */
const allHits = (
  tenant: string,
  corpusId: string,
  prepared: PreparedQuery,
  documents: DocumentScope | undefined,
): Statement => sql`
      with visible as not materialized (
        select c.id, c.words, c.trigrams from chunks c where c.tenant_id = ${tenant} ${visible(corpusId, documents)}
      ), word_hits as (
        select id, words <#> ${prepared.words}::sparsevec as distance from visible order by distance limit ${byWords}
      ), trigram_hits as (
        select id, trigrams <#> ${prepared.trigrams}::sparsevec as distance from visible
        where ${prepared.needsTrigrams}::boolean order by distance limit ${byTrigrams}
      )
      select id from word_hits where distance < 0 union select id from trigram_hits where distance < 0`;

const rankedCandidates = (
  tenant: string,
  corpusId: string,
  prepared: PreparedQuery,
  documents: DocumentScope | undefined,
  hits: Statement,
): Statement<FoundChunk> => sql<FoundChunk>`
    -- Row by row through the key: of how many hits there are the planner knows nothing, and of tenants that each is of middling size;
    -- it would read all of a large one.
    with hits as materialized (${hits}
    ), scored as (
      select c.id, -(c.words <#> ${prepared.words}::sparsevec) as words, -(c.trigrams <#> ${prepared.trigrams}::sparsevec) as trigrams
      from hits cross join lateral (
        select id, words, trigrams from chunks c where c.tenant_id = ${tenant} and c.id = hits.id ${visible(corpusId, documents)} offset 0
      ) c
    ), best as (
      select * from scored order by words + ${prepared.trigramWeight}::float8 * trigrams desc limit ${read}
    )
    select ${shown}, best.words, best.trigrams
    from best cross join lateral (select * from chunks where tenant_id = ${tenant} and id = best.id offset 0) c
    join documents d on d.tenant_id = c.tenant_id and d.id = c.document_id`;

/** What a search among vectors reads of chunks, and which it may find. */
export const viewOfChunks = (corpusId: string, documents: DocumentScope | undefined): VectorView => ({
  columns: shown,
  joins: sql`join documents d on d.tenant_id = c.tenant_id and d.id = c.document_id`,
  visible: visible(corpusId, documents),
  narrow: documents !== undefined,
});
