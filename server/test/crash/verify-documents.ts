import { type Chunk, chunkText, indexedText } from '#modules/knowledge/documents/chunk.ts';
import type { Format } from '#modules/knowledge/documents/formats/format.ts';
import { readSource } from '#modules/knowledge/documents/formats/read.ts';
import { chunkSizesOf } from '#modules/knowledge/documents/sizes.ts';
import { hashedEmbedding } from '#modules/knowledge/embeddings/hashed.ts';
import { analyzeDocument } from '#modules/knowledge/retrieval/analyze.ts';
import type { Db } from '#platform/db/database.ts';
import { sql } from '#platform/db/sql.ts';
import type { Ledger } from './ledger.ts';
import { compareCounts, sameSparse } from './verify-memories.ts';

interface DocumentRow {
  tenant_id: string;
  id: string;
  corpus_id: string;
  status: string;
  format: Format;
  content: Buffer;
  hash: string;
  extracted_text: string;
  options: object;
  attempt: number;
  requeues: number;
  num_chunks: number;
}

interface ChunkRow extends Omit<Chunk, 'index'> {
  tenant_id: string;
  document_id: string;
  corpus_id: string;
  position: number;
  above: string;
  words: string;
  trigrams: string;
  vectors: string[];
}

type Tell = (problem: string) => void;
type Named = { tenant_id: string; document_id: string };

const keyOf = ({ tenant_id, document_id }: Named) => `${tenant_id} ${document_id}`;

/** Compares every document with what was acknowledged, and its chunks with one run of the chunker over its text. */
export async function verifyDocuments(operator: Db, tenants: string[], ledger: Ledger, tell: Tell) {
  const documents = await operator.rows(sql<DocumentRow>`
    select tenant_id, id, corpus_id, status, format, content, encode(content_hash, 'hex') as hash, extracted_text, options,
      attempt, requeues, num_chunks
    from documents where tenant_id = any(${tenants}::text[])`);
  const chunks = await operator.rows(sql<ChunkRow>`
    select c.tenant_id, c.document_id, c.corpus_id, c.position, c.text, c.above, c.heading_path, c.offset_start, c.offset_end,
      c.words::text as words, c.trigrams::text as trigrams,
      array(select v.embedding::text from chunk_vectors v where v.tenant_id = c.tenant_id and v.chunk_id = c.id) as vectors
    from chunks c where c.tenant_id = any(${tenants}::text[]) order by c.tenant_id, c.document_id, c.position`);
  const known = new Map(documents.map((row) => [`${row.tenant_id} ${row.id}`, row]));
  for (const { id, tenant, may } of ledger.documents) {
    const row = known.get(`${tenant} ${id}`);
    if (!may.includes(row?.hash)) tell(`document ${id} is ${row ? 'there with other bytes' : 'not there'}`);
  }
  const ofDocument = Map.groupBy(chunks, keyOf);
  for (const row of documents) {
    const key = `${row.tenant_id} ${row.id}`;
    await checkDocument(row, ofDocument.get(key) ?? [], tell);
    ofDocument.delete(key);
  }
  if (ofDocument.size > 0) tell(`chunks of documents that are not there: ${[...ofDocument.keys()]}`);
  await checkVectors(operator, tenants, chunks.length, tell);
  await checkAttempts(operator, documents, tenants, ledger, tell);
  const corpora = await checkCorpora(operator, tenants, ledger, tell);
  for (const id of corpora) {
    const own = chunks.filter(({ corpus_id }) => corpus_id === id);
    await checkCounts(operator, tenants, id, own, tell);
  }
  const requeued = documents.reduce((sum, { requeues }) => sum + requeues, 0);
  return { documents: documents.length, chunks: chunks.length, requeued };
}

async function checkDocument(row: DocumentRow, stored: ChunkRow[], tell: Tell): Promise<void> {
  if (row.status !== 'succeeded') tell(`document ${row.id} is ${row.status}`);
  const read = await readSource({ format: row.format, bytes: row.content }, 1_000_000);
  if (read.text !== row.extracted_text) tell(`document ${row.id} has the text of other bytes`);
  const content_type = read.markdown ? 'text/markdown' : 'text/plain';
  const wanted = chunkText(read.text, { content_type, ...chunkSizesOf(row.options) });
  if (stored.length !== wanted.length || row.num_chunks !== wanted.length) {
    tell(
      `document ${row.id} has ${stored.length} chunks, says ${row.num_chunks} and makes ${wanted.length} at attempt ${row.attempt}`,
    );
    return;
  }
  const title = wanted[0]?.heading_path[0];
  wanted.forEach((chunk, i) => {
    const own = stored[i]!;
    const same =
      own.position === chunk.index &&
      own.text === chunk.text &&
      own.offset_start === chunk.offset_start &&
      own.offset_end === chunk.offset_end &&
      own.heading_path.join('\n') === chunk.heading_path.join('\n');
    const indexed = indexedText(chunk, title);
    if (!same || own.above + own.text !== indexed)
      tell(`chunk ${i} of document ${row.id} is of another text`);
    const { words, trigrams } = analyzeDocument(indexed);
    if (!sameSparse(own.words, words) || !sameSparse(own.trigrams, trigrams))
      tell(`chunk ${i} of document ${row.id} is searched by other words than it has`);
    const vector = own.vectors.length === 1 ? (JSON.parse(own.vectors[0]!) as number[]) : [];
    const hashed = hashedEmbedding(indexed);
    if (vector.length !== hashed.length || !vector.every((value, at) => Math.fround(value) === hashed[at]))
      tell(`chunk ${i} of document ${row.id} has ${own.vectors.length} vectors, or another text's`);
  });
}

async function checkVectors(operator: Db, tenants: string[], chunks: number, tell: Tell): Promise<void> {
  const row = await operator.one(sql<{ vectors: number }>`
    select count(*) as vectors from chunk_vectors where tenant_id = any(${tenants}::text[])`);
  if (row!.vectors !== chunks) tell(`${chunks} chunks have ${row!.vectors} vectors`);
}

interface Attempts {
  tenant_id: string;
  document_id: string;
  asked: number;
  jobs: number;
  ended: number;
  attempts_ended: number;
  deleted: number;
}

/** Every attempt was told once when it was asked for and once when it ended, and had one job. */
async function checkAttempts(
  operator: Db,
  documents: DocumentRow[],
  tenants: string[],
  ledger: Ledger,
  tell: Tell,
): Promise<void> {
  const rows = await operator.rows(sql<Attempts>`
    select f.tenant_id, f.resource_id as document_id,
      count(*) filter (where f.type like '%.enqueued') as asked,
      count(j.id) filter (where f.type like '%.enqueued') as jobs,
      count(*) filter (where f.type like 'documents.ingest.succeeded') as ended,
      count(distinct f.data->>'attempt') filter (where f.type like 'documents.ingest.succeeded') as attempts_ended,
      count(*) filter (where f.type = 'documents.deleted') as deleted
    from facts f left join pgboss.job j on j.id = f.id
    where f.tenant_id = any(${tenants}::text[]) and f.resource_type = 'document' group by 1, 2`);
  const acknowledged = new Map(
    ledger.documents.map(({ tenant, id, acknowledged: times }) => [`${tenant} ${id}`, times]),
  );
  const there = new Map(documents.map((row) => [`${row.tenant_id} ${row.id}`, row]));
  for (const row of rows) {
    const { document_id: id, asked, jobs, ended, attempts_ended, deleted } = row;
    const document = there.get(keyOf(row));
    if (asked !== jobs) tell(`document ${id} was queued ${asked} times and had ${jobs} jobs`);
    if (asked < (acknowledged.get(keyOf(row)) ?? 0))
      tell(`document ${id} was queued ${asked} times, fewer than were acknowledged`);
    if (ended !== attempts_ended) tell(`an attempt of document ${id} succeeded twice`);
    if (document && (asked !== document.attempt || deleted !== 0))
      tell(`document ${id} is at attempt ${document.attempt}, was queued ${asked} times, deleted ${deleted}`);
    if (document && ended + document.requeues < asked)
      tell(`document ${id} was queued ${asked} times and ended ${ended} times`);
    // One that was in a corpus of its own may have left with it.
    if (!document && deleted !== 1 && !id.startsWith('in-'))
      tell(`document ${id} is not there and was deleted ${deleted} times`);
  }
}

/** A corpus that was deleted has left nothing. Answers the ids of all that is left, in documents or in statistics. */
async function checkCorpora(operator: Db, tenants: string[], ledger: Ledger, tell: Tell): Promise<string[]> {
  const rows = await operator.rows(sql<{ tenant_id: string; id: string; deleted_at: string | null }>`
    select tenant_id, id, deleted_at from corpora where tenant_id = any(${tenants}::text[])`);
  const there = new Map(rows.map((row) => [`${row.tenant_id} ${row.id}`, row]));
  for (const { tenant, id, may } of ledger.corpora) {
    const row = there.get(`${tenant} ${id}`);
    if (row?.deleted_at) tell(`corpus ${id} is deleted and still there`);
    if (!may.includes(row ? 'there' : 'gone'))
      tell(`corpus ${id} is ${row ? 'there' : 'gone'}, but may be ${may}`);
  }
  const left = await operator.rows(sql<{ id: string }>`
    select distinct corpus_id as id from documents where tenant_id = any(${tenants}::text[])
    union select distinct corpus_id from chunks where tenant_id = any(${tenants}::text[])
    union select distinct corpus_id from chunk_vectors where tenant_id = any(${tenants}::text[])
    union select distinct substr(scope, 8) from text_counts where tenant_id = any(${tenants}::text[]) and scope like 'corpus:%'
    union select distinct substr(scope, 8) from term_changes where tenant_id = any(${tenants}::text[]) and scope like 'corpus:%'
    union select distinct substr(scope, 8) from term_counts where tenant_id = any(${tenants}::text[]) and scope like 'corpus:%'`);
  const ids = left.map(({ id }) => id);
  for (const id of ids)
    if (!rows.some((row) => row.id === id)) tell(`corpus ${id} is gone and has left something`);
  return ids;
}

async function checkCounts(
  operator: Db,
  tenants: string[],
  corpusId: string,
  chunks: ChunkRow[],
  tell: Tell,
): Promise<void> {
  const texts = Map.groupBy(chunks, ({ tenant_id }) => tenant_id);
  for (const tenant of tenants)
    await compareCounts(
      operator,
      tenant,
      `corpus:${corpusId}`,
      (texts.get(tenant) ?? []).map(({ above, text }) => above + text),
      tell,
    );
}
