import type { Ctx } from '#platform/context.ts';
import { sha256 } from '#platform/crypto.ts';
import type { Db } from '#platform/db/database.ts';
import { conflict, invalid, notFound, unavailable } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import { tooLarge } from '#platform/http/json.ts';
import { Answer } from '#platform/http/route.ts';
import { isSlug, uuidv7 } from '#platform/ids.ts';
import { authorize, requireScope } from '#platform/permission.ts';
import { type Corpus, getCorpus, holdCorpus, slugProblem } from '../corpora/service.ts';
import { maySee, principalsOf, requireGrant, requireOwner } from './access.ts';
import { endings, type Format, mediaTypes, type Warning } from './formats/format.ts';
import { upsertPermission } from './permission-store.ts';
import type { Access, DocumentAccepted, DocumentPermission } from './schema.ts';
import {
  type ChunkSizes,
  type DocumentContent,
  type DocumentRow,
  findFullQueue,
  insertDocument,
  keepNext,
  listTwins,
  lockDocument,
  queueDocument,
  replaceContent,
} from './store.ts';
import { targetOf } from './visible.ts';

/** What there is to store; what is undefined keeps its value where a document is overwritten. */
export interface Input {
  corpus_id: string;
  document_id: string | undefined;
  overwrite: boolean;
  filename: string | undefined;
  format: Format;
  source: 'upload' | 'text';
  bytes: Buffer;
  metadata_json: Record<string, unknown> | undefined;
  access: Access | undefined;
  options: ChunkSizes;
  warnings: Warning[];
}

/** Stores a document and queues it, in one transaction. @throws ApiError 404, 409, 413, 422, 503 SERVICE_BUSY */
export async function store(ctx: Ctx, input: Input): Promise<Answer> {
  if (input.document_id !== undefined && !isSlug(input.document_id))
    throw invalid([{ path: '/document_id', message: slugProblem }]);
  const { UPLOAD_LIMIT_BYTES: limit } = ctx.app.config;
  if (input.bytes.length > limit) throw tooLarge(limit);
  const corpus = await getCorpus(ctx, input.corpus_id);
  const id = input.document_id ?? `doc-${uuidv7().replaceAll('-', '')}`;
  const who = principalsOf(ctx);
  const hash = sha256(input.bytes);
  return ctx.db.transaction(async (tx) => {
    const [held, locked, full, twins] = await tx.batch([
      holdCorpus(ctx.tenant, input.corpus_id),
      lockDocument(ctx.tenant, id, who),
      findFullQueue(ctx.tenant, ctx.app.config.INGEST_MAX_QUEUED),
      listTwins(ctx.tenant, { id, corpus_id: input.corpus_id, content_hash: hash }, who),
    ]);
    if (held.rows.length === 0) throw notFound('Corpus');
    const before = locked.rows[0];
    const busy = full.rows.length > 0;
    const twin = await firstVisible(ctx, twins.rows);
    if (before) return storeAgain(ctx, tx, before, { ...input, busy, twin, corpus, hash });
    const row = rowOf(input, id, hash, undefined, corpus);
    const job = uuidv7();
    const key = { tenant_id: ctx.tenant, id, corpus_id: input.corpus_id, created_by: ctx.actor.identity_id };
    await authorize(ctx, 'documents:create', targetOf({ ...row, id, created_by: key.created_by ?? null }));
    if (busy) throw queueFull();
    const now = new Date();
    const made = await tx.rows(insertDocument(key, row, job, now));
    if (made.length === 0) {
      // Somebody else made it between the two statements; it is there to be locked now.
      const [other] = await tx.rows(lockDocument(ctx.tenant, id, who));
      if (!other)
        throw conflict(
          'DOCUMENT_CHANGED',
          'The document was changed by another request just now. Repeat the request.',
        );
      return storeAgain(ctx, tx, other, { ...input, busy, twin, corpus, hash });
    }
    const about = { ...row, ...(twin ? { duplicate_of: twin } : {}) };
    await tx.batch([
      ...(key.created_by ? [upsertPermission(ownership(ctx, id, key.created_by, now))] : []),
      enqueued(ctx, 'documents.ingest.enqueued', job, { id, corpus_id: input.corpus_id, attempt: 1 }, about),
    ]);
    return accepted(202, { id, status: 'queued', last_job_id: job, warnings: row.intake_warnings }, twin);
  });
}

type Again = Input & { busy: boolean; twin: string | undefined; corpus: Corpus; hash: Buffer };

/** A document of this id exists: tells what it is, or puts the new content in its place. */
async function storeAgain(ctx: Ctx, tx: Db, before: DocumentRow, input: Again): Promise<Answer> {
  requireScope(ctx, 'documents:read');
  // Decided on the row that is locked, not on one that was read before: it may have come or changed meanwhile.
  if (!(await maySee(ctx, before))) throw notFound('Document');
  if (input.overwrite) {
    await authorize(ctx, 'documents:create', targetOf(before));
    await authorize(ctx, 'documents:update', targetOf(before));
    requireGrant(ctx, before, 'write');
    // Whoever may write is not yet one who says who may read.
    if (input.access && input.access !== before.access) requireOwner(ctx, before);
  }
  if (before.corpus_id !== input.corpus_id) {
    throw conflict(
      'DOCUMENT_IN_OTHER_CORPUS',
      'A document with this id is in another corpus. Choose another id.',
    );
  }
  const inFlight = before.status === 'queued' || before.status === 'processing';
  if (inFlight || !input.overwrite) return accepted(200, before);
  if (input.busy) throw queueFull();
  const row = rowOf(input, before.id, input.hash, before, input.corpus);
  // As where it is changed: what becomes of it must be allowed as well.
  await authorize(ctx, 'documents:create', targetOf({ ...before, ...row }));
  const job = uuidv7();
  const attempt = before.attempt + 1;
  const about = { ...row, ...(input.twin ? { duplicate_of: input.twin } : {}) };
  const { metadata_json, access } = input;
  const given = { ...(metadata_json && { metadata_json }), ...(access && { access }) };
  await tx.batch([
    before.is_found
      ? keepNext(ctx.tenant, before.id, row, given)
      : replaceContent(ctx.tenant, before.id, row),
    queueDocument(ctx.tenant, before.id, attempt, row.options, job, new Date()),
    enqueued(
      ctx,
      'documents.ingest.enqueued',
      job,
      { id: before.id, corpus_id: before.corpus_id, attempt },
      about,
    ),
  ]);
  const now = { id: before.id, status: 'queued' as const, last_job_id: job, warnings: row.intake_warnings };
  return accepted(202, now, input.twin);
}

const queueFull = () =>
  unavailable(
    'SERVICE_BUSY',
    'As many documents of your tenant wait to be indexed as may. Repeat the request when some are done.',
    5,
  );

async function firstVisible(ctx: Ctx, documents: DocumentRow[]): Promise<string | undefined> {
  for (const document of documents) if (await maySee(ctx, document)) return document.id;
  return undefined;
}

function rowOf(
  input: Input,
  id: string,
  hash: Buffer,
  before: DocumentRow | undefined,
  corpus: Corpus,
): DocumentContent {
  return {
    filename: input.filename ?? before?.filename ?? `${id}.${endings[input.format]}`,
    format: input.format,
    content_type: mediaTypes[input.format],
    // Kept where nothing is said, as metadata is: what closes a document must not be lost with an upload that has none.
    access: input.access ?? before?.access ?? 'open',
    intake_warnings: [...input.warnings, ...routedElsewhere(corpus)],
    source: input.source,
    ingest_source: input.source === 'upload' ? 'upload_file' : 'raw_text',
    metadata_json: input.metadata_json ?? before?.metadata_json ?? {},
    content: input.bytes,
    content_hash: hash,
    options: input.options,
  };
}

function routedElsewhere({ provider_config_json }: Corpus): Warning[] {
  const { provider } = provider_config_json.retrieval;
  if (provider === 'local_pgvector') return [];
  const message = `The corpus is searched in ${provider}: the document is indexed here, and found once the corpus is routed to local_pgvector.`;
  return [{ code: 'CORPUS_ROUTED_ELSEWHERE', message }];
}

function ownership(ctx: Ctx, documentId: string, identity: string, now: Date): DocumentPermission {
  return {
    id: uuidv7(),
    tenant_id: ctx.tenant,
    document_id: documentId,
    principal_type: 'user',
    principal_id: identity,
    permission: 'owner',
    granted_by: null,
    expires_at: null,
    created_at: now.toISOString(),
  };
}

type Enqueued = { id: string; corpus_id: string; attempt: number };
type About = Partial<DocumentContent> & { duplicate_of?: string };

/** The fact that a document waits for an attempt; its id is the job's. */
export const enqueued = (
  ctx: Ctx,
  type: 'documents.ingest.enqueued' | 'documents.reindex.enqueued',
  job: string,
  { id, corpus_id, attempt }: Enqueued,
  about: About = {},
) =>
  fact(ctx, {
    id: job,
    type,
    resource_type: 'document',
    resource_id: id,
    data: {
      attempt,
      corpus_id,
      ...(about.filename === undefined ? {} : { filename: about.filename }),
      ...(about.content_type === undefined ? {} : { content_type: about.content_type }),
      ...(about.content === undefined ? {} : { size_bytes: about.content.length }),
      ...(about.content_hash === undefined ? {} : { sha256: about.content_hash.toString('hex') }),
      ...(about.access === undefined ? {} : { access: about.access }),
      ...(about.options === undefined ? {} : { options: about.options }),
      ...(about.duplicate_of === undefined ? {} : { duplicate_of: about.duplicate_of }),
      ...(about.intake_warnings?.length ? { warnings: about.intake_warnings.map(({ code }) => code) } : {}),
    },
  });

/** The answer to whoever stores or reindexes. */
export const accepted = (
  status: number,
  document: Pick<DocumentRow, 'id' | 'status' | 'last_job_id'> & { warnings?: Warning[] },
  duplicateOf?: string,
): Answer => {
  const body: DocumentAccepted = {
    document_id: document.id,
    status: document.status,
    job_id: document.last_job_id,
    status_url: `/v1/documents/${document.id}`,
    ...(document.warnings?.length ? { warnings: document.warnings } : {}),
    ...(duplicateOf ? { duplicate_of: duplicateOf } : {}),
  };
  return new Answer(status, body);
};
