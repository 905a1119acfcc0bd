import type { Ctx } from '#platform/context.ts';
import type { Db } from '#platform/db/database.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import type { JobPayload } from '#platform/jobs/worker.ts';
import { takingTurns } from '#platform/turns.ts';
import { corpusScope, lockCorpusContent } from '../corpora/service.ts';
import { type Embedded, embedTexts } from '../embeddings/service.ts';
import {
  analyzeDocument,
  type CountedText,
  countedAs,
  countTexts,
  encodeSparse,
  settleCounts,
} from '../retrieval/service.ts';
import { storeVectors, tailGrew } from '../vectors/service.ts';
import { type Chunk, indexedText } from './chunk.ts';
import { type ChunkRow, deleteChunks, insertChunks, listIndexed } from './chunk-store.ts';
import { extractDocument } from './extract.ts';
import { Unreadable } from './formats/format.ts';
import {
  type ClaimedDocument,
  claimDocument,
  failDocument,
  type ReadDocument,
  succeedDocument,
} from './store.ts';
import { corpusVectors } from './vectors.ts';

/** Chunks analysed and embedded before other work of the process has its turn. */
const slice = 64;
const inserted = 1_000;

/**
 * Makes a document findable: reads, cuts, analyses and embeds it outside any transaction, then replaces its chunks, vectors
 * and statistics in one. Killed anywhere, it leaves the document as it was, to be done again; done twice, the second
 * finds the attempt ended and changes nothing.
 */
export async function ingestDocument(ctx: Ctx, payload: JobPayload): Promise<void> {
  const attempt = Number(payload.data.attempt);
  const document = await claimDocument(ctx.db, payload.resource_id!, attempt, new Date());
  if (!document) return;
  let rows: Prepared;
  try {
    rows = await prepare(ctx, document);
  } catch (error) {
    // Trying again would end the same way.
    if (!(error instanceof Unreadable)) throw error;
    await endBadly(ctx, document.id, attempt, error.message);
    return;
  }
  const before = await countedTexts(ctx.db, document.id, ctx.signal);
  await replace(ctx, document, rows, before);
  await settleCounts(ctx, corpusScope(document.corpus_id));
  await tailGrew(
    ctx,
    corpusVectors(document.corpus_id),
    new Set(rows.vectors.map(({ embedded }) => embedded.model)),
  );
}

/** Tells that an attempt failed for good. What an earlier attempt made stays findable. */
export async function endBadly(ctx: Ctx, id: string, attempt: number, reason: string): Promise<void> {
  await ctx.db.transaction(async (tx) => {
    const ended = await tx.rows(failDocument(ctx.tenant, id, attempt, reason, new Date()));
    if (ended.length === 0) return;
    await tx.run(
      fact(ctx, {
        type: 'documents.ingest.failed',
        resource_type: 'document',
        resource_id: id,
        outcome: 'failure',
        data: { attempt, reason },
      }),
    );
  });
}

interface Prepared {
  read: ReadDocument;
  rows: ChunkRow[];
  vectors: { id: string; embedded: Embedded }[];
  counted: CountedText[];
}

async function prepare(ctx: Ctx, document: ClaimedDocument): Promise<Prepared> {
  const { chunks, ...read } = await extractDocument(ctx, document);
  const title = titleOf(document, chunks);
  const prepared: Prepared = { read, rows: [], vectors: [], counted: [] };
  const others = takingTurns();
  for (let at = 0; at < chunks.length; at += slice) {
    ctx.signal.throwIfAborted();
    const part = chunks.slice(at, at + slice);
    const indexed = part.map((chunk) => indexedText(chunk, title));
    const embedded = await embedTexts(ctx, indexed);
    for (const [i, chunk] of part.entries()) {
      const counted = analyzeDocument(indexed[i]!);
      prepared.counted.push(counted);
      const id = uuidv7();
      prepared.vectors.push({ id, embedded: embedded[i]! });
      prepared.rows.push({
        id,
        position: chunk.index,
        text: chunk.text,
        above: indexed[i]!.slice(0, indexed[i]!.length - chunk.text.length),
        heading_path: chunk.heading_path,
        offset_start: chunk.offset_start,
        offset_end: chunk.offset_end,
        page_start: chunk.page_start,
        page_end: chunk.page_end,
        words: encodeSparse(counted.words),
        trigrams: encodeSparse(counted.trigrams),
      });
      const turn = others();
      if (turn) await turn;
    }
  }
  return prepared;
}

/** The heading a document begins with, else its file name unless that only repeats the id. */
function titleOf({ id, filename }: ClaimedDocument, chunks: Chunk[]): string | undefined {
  const heading = chunks[0]?.heading_path[0];
  if (heading !== undefined) return heading;
  const stem = filename.replace(/\.[^.]*$/, '');
  return stem === id ? undefined : stem.replace(/[-_]+/g, ' ');
}

/** The terms of all that is indexed of a document, so that they can be taken out of the statistics. */
export async function countedTexts(db: Db, documentId: string, signal: AbortSignal): Promise<CountedText[]> {
  const counted: CountedText[] = [];
  const others = takingTurns();
  for (let after = -1; ; ) {
    signal.throwIfAborted();
    const rows = await listIndexed(db, documentId, after, inserted);
    for (const row of rows) {
      counted.push(countedAs(row));
      const turn = others();
      if (turn) await turn;
    }
    if (rows.length < inserted) return counted;
    after = rows.at(-1)!.position;
  }
}

async function replace(
  ctx: Ctx,
  document: ClaimedDocument,
  { read, rows, vectors, counted }: Prepared,
  before: CountedText[],
): Promise<void> {
  const { id, corpus_id, attempt } = document;
  const scope = corpusScope(corpus_id);
  await ctx.db.transaction(async (tx) => {
    const [, ended] = await tx.batch([
      lockCorpusContent(ctx.tenant, corpus_id),
      succeedDocument(ctx.tenant, id, attempt, read, rows.length, new Date()),
    ]);
    if (ended.rows.length === 0) return;
    await tx.batch([...deleteChunks(ctx.tenant, scope, id), ...countTexts(ctx.tenant, scope, before, -1)]);
    for (let at = 0; at < rows.length; at += inserted) {
      ctx.signal.throwIfAborted();
      await tx.batch([
        ...insertChunks(ctx.tenant, document, rows.slice(at, at + inserted), ctx.app.vectorTypes),
        ...storeVectors(ctx, corpusVectors(corpus_id), vectors.slice(at, at + inserted)),
      ]);
    }
    await tx.batch([
      ...countTexts(ctx.tenant, scope, counted, 1),
      fact(ctx, {
        type: 'documents.ingest.succeeded',
        resource_type: 'document',
        resource_id: id,
        data: {
          attempt,
          corpus_id,
          num_chunks: rows.length,
          ...(read.warnings.length > 0 ? { warnings: read.warnings.map(({ code }) => code) } : {}),
        },
      }),
    ]);
  });
}
