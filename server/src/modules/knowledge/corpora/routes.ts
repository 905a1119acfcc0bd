import { Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';
import { route } from '#platform/http/route.ts';
import { Corpus, CorpusCreate, CorpusUpdate } from './schema.ts';
import { createCorpus, getCorpus, listVisibleCorpora, updateCorpus } from './service.ts';

const tag = 'corpora';

export const corpusRoutes = [
  route({
    method: 'POST',
    path: '/v1/corpora',
    name: 'create_corpus',
    summary: 'Make a corpus: a body of documents that is searched together',
    tag,
    permission: 'corpora:create',
    envelope: true,
    legacy: true,
    body: CorpusCreate,
    response: { 201: Corpus },
    handler: (ctx, { body }) => createCorpus(ctx, body),
  }),
  route({
    method: 'GET',
    path: '/v1/corpora',
    name: 'list_corpora',
    summary: 'Corpora the caller may see, newest first',
    tag,
    permission: 'corpora:list',
    decidesRows: true,
    envelope: true,
    legacy: true,
    query: T.Object(pageQuery(25, 100), { additionalProperties: false }),
    response: { 200: T.Array(Corpus) },
    handler: (ctx, { query }) => listVisibleCorpora(ctx, query),
  }),
  route({
    method: 'GET',
    path: '/v1/corpora/:corpus_id',
    name: 'get_corpus',
    summary: 'One corpus',
    tag,
    permission: 'corpora:read',
    decidesRows: true,
    envelope: true,
    legacy: true,
    params: T.Object({ corpus_id: T.String() }),
    response: { 200: Corpus },
    handler: (ctx, { params }) => getCorpus(ctx, params.corpus_id),
  }),
  route({
    method: 'PATCH',
    path: '/v1/corpora/:corpus_id',
    name: 'update_corpus',
    summary: 'Rename a corpus, or say where it is searched',
    tag,
    permission: 'corpora:update',
    alsoNeeds: [{ permission: 'corpora:read' }],
    decidesRows: true,
    envelope: true,
    legacy: true,
    params: T.Object({ corpus_id: T.String() }),
    body: CorpusUpdate,
    response: { 200: Corpus },
    handler: (ctx, { params, body }) => updateCorpus(ctx, params.corpus_id, body),
  }),
];
