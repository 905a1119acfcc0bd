import type { Ctx } from '#platform/context.ts';
import { ApiError, conflict, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import type { Answer } from '#platform/http/route.ts';
import { isSlug, uuidv7 } from '#platform/ids.ts';
import { authorize, isPermitted, requireScope } from '#platform/permission.ts';
import { visiblePage } from '../../access/policy/service.ts';
import { isUsable, readProviderConfig } from './provider-config.ts';
import type { Corpus, CorpusCreate, CorpusUpdate, Retrieval } from './schema.ts';
import { findCorpus, insertCorpus, listCorpora, lockCorpus, updateCorpusRow } from './store.ts';

export { Corpus, type Retrieval } from './schema.ts';
export {
  type DeletedCorpus,
  deleteCorpusRow,
  holdCorpus,
  isBeingDeleted,
  listDeletedCorpora,
  lockCorpus,
  lockCorpusContent,
  markCorpusDeleted,
  moveToPurgeJob,
} from './store.ts';

/** Scope of the statistics that searches of a corpus use. */
export const corpusScope = (corpusId: string): string => `corpus:${corpusId}`;

/** What is wrong with an id a client chose. */
export const slugProblem = 'must be 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit';

/** Makes a corpus. @throws ApiError 409 CORPUS_EXISTS, 422 */
export async function createCorpus(ctx: Ctx, input: CorpusCreate): Promise<Corpus> {
  if (input.id !== undefined && !isSlug(input.id)) throw invalid([{ path: '/id', message: slugProblem }]);
  const now = new Date().toISOString();
  const corpus: Corpus = {
    id: input.id ?? `corpus-${uuidv7().replaceAll('-', '')}`,
    tenant_id: ctx.tenant,
    name: input.name,
    provider_config_json: readProviderConfig(input.provider_config_json, ctx.app.config, ctx.tenant),
    created_at: now,
    updated_at: now,
  };
  return ctx.db.transaction(async (tx) => {
    const made = await tx.rows(insertCorpus(corpus));
    if (made.length === 0)
      throw conflict(
        'CORPUS_EXISTS',
        'A corpus with this id exists, or is still being deleted. Choose another id, or repeat the request.',
      );
    const { id, name, provider_config_json } = corpus;
    await tx.run(
      fact(ctx, {
        type: 'corpora.created',
        resource_type: 'corpus',
        resource_id: id,
        after: { name, provider_config_json },
      }),
    );
    return corpus;
  });
}

/** @throws ApiError 404 also for a corpus the caller may not see */
export async function getCorpus(ctx: Ctx, id: string): Promise<Corpus> {
  requireScope(ctx, 'corpora:read');
  const corpus = await findCorpus(ctx.db, id);
  if (!corpus || !(await isPermitted(ctx, 'corpora:read', { id }))) throw notFound('Corpus');
  return corpus;
}

/** Changes name or routing of a corpus; what is not given stays. @throws ApiError 404, 422 */
export async function updateCorpus(ctx: Ctx, id: string, input: CorpusUpdate): Promise<Corpus> {
  await getCorpus(ctx, id);
  await authorize(ctx, 'corpora:update', { id });
  const config =
    input.provider_config_json && readProviderConfig(input.provider_config_json, ctx.app.config, ctx.tenant);
  return ctx.db.transaction(async (tx) => {
    const [before] = await tx.rows(lockCorpus(ctx.tenant, id));
    if (!before) throw notFound('Corpus');
    if (input.name === undefined && config === undefined) return before;
    const corpus: Corpus = {
      ...before,
      name: input.name ?? before.name,
      provider_config_json: config ?? before.provider_config_json,
      updated_at: new Date().toISOString(),
    };
    await tx.batch([
      updateCorpusRow(corpus),
      fact(ctx, {
        type: 'corpora.updated',
        resource_type: 'corpus',
        resource_id: id,
        before: { name: before.name, provider_config_json: before.provider_config_json },
        after: { name: corpus.name, provider_config_json: corpus.provider_config_json },
      }),
    ]);
    return corpus;
  });
}

/** Who searches a corpus. @throws ApiError 409 RETRIEVAL_CONFIG_INVALID when what is stored can not be used, or not any more */
export function retrievalOf({ provider_config_json }: Corpus, ctx: Ctx): Retrieval {
  if (isUsable(provider_config_json, ctx.app.config, ctx.tenant)) return provider_config_json.retrieval;
  throw new ApiError(
    409,
    'RETRIEVAL_CONFIG_INVALID',
    'The retrieval configuration of the corpus can not be used. Set provider_config_json anew.',
  );
}

/** Corpora the caller may see, newest first. */
export const listVisibleCorpora = (ctx: Ctx, query: PageQuery): Promise<Answer> =>
  visiblePage(ctx, 'corpora:list', {}, query, {
    rows: (from) => listCorpora(ctx.db, from),
    owned: false,
    target: ({ id }) => ({ id }),
    position: (row) => [row.created_at, row.id],
    size: 25,
  });
