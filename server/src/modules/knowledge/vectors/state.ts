import type { Ctx } from '#platform/context.ts';
import { HASHED_MODEL, linkHealth, preferredOpen } from '../embeddings/service.ts';
import type { VectorCollection } from './collection.ts';
import type { EmbeddingState } from './schema.ts';
import { isIndexed } from './seal.ts';
import { listSegments } from './segment-store.ts';
import { countSpace, listSpaces, type Space } from './space-store.ts';
import { scopeOf } from './tend.ts';

type Links = EmbeddingState['links'];
type SpaceState = EmbeddingState['collections'][number]['models'][number];

/** A renewal that moved within this time is running. */
const runningMs = 30_000;

/** Where the tenant's vectors are and of which models, and how the models do. */
export async function embeddingState(ctx: Ctx, collections: VectorCollection[]): Promise<EmbeddingState> {
  const spaces = await listSpaces(ctx.db);
  const waiting = new Map<string, number>();
  for (const collection of collections)
    for (const [scope, count] of await collection.waiting(ctx.db)) waiting.set(scope, count);
  const scopes = new Set([...waiting.keys(), ...spaces.map(({ scope }) => scope)]);
  const answer: EmbeddingState = { links: linksOf(ctx), collections: [] };
  const preferred = await preferredName(ctx);
  for (const name of [...scopes].sort()) {
    const scope = scopeOf(collections, name);
    if (!scope) continue;
    const models: SpaceState[] = [];
    for (const space of spaces.filter((one) => one.scope === name))
      models.push(await spaceState(ctx, scope, space, preferred));
    answer.collections.push({
      collection: scope.collection.name,
      scope: name,
      waiting: waiting.get(name) ?? 0,
      // A space whose last vector was deleted is known until somebody has reason to look at it.
      models: models.filter(({ vectors }) => vectors > 0),
    });
  }
  return answer;
}

async function preferredName({ app }: Ctx): Promise<string | undefined> {
  const link = app.models.embeddings.find(({ former }) => !former);
  return link ? link.peek()?.name : preferredOpen(app);
}

async function spaceState(
  ctx: Ctx,
  scope: NonNullable<ReturnType<typeof scopeOf>>,
  space: Space,
  preferred: string | undefined,
): Promise<SpaceState> {
  const { vectors, tail, refused } = await countSpace(ctx.db, scope, space.model, preferred);
  const [{ rows: segments }] = await ctx.db.batch([listSegments(ctx.tenant)] as const);
  const remaining = space.settled_for === preferred ? 0 : vectors - refused;
  const scanned = isIndexed(ctx.app, space.model, space.dimensions) ? tail : vectors;
  const moved = space.renewed_at !== null && Date.now() - Date.parse(space.renewed_at) < runningMs;
  return {
    model: space.model,
    dimensions: space.dimensions,
    vectors,
    indexed: vectors - scanned,
    scanned,
    segments: segments.filter(
      ({ scope: name, model, state }) => name === space.scope && model === space.model && state === 'live',
    ).length,
    renewal:
      preferred === undefined || preferred === space.model
        ? null
        : {
            to: preferred,
            state: remaining === 0 ? 'done' : moved ? 'running' : 'waiting',
            done: space.renewed,
            remaining,
            refused,
            last_progress_at: space.renewed_at,
          },
  };
}

function linksOf({ app }: Ctx): Links {
  const preferred = app.models.embeddings.find(({ former }) => !former);
  const links = app.models.embeddings.map((link): Links[number] => {
    const { working, since, lastFailure } = linkHealth(app, link);
    return {
      provider: link.provider,
      model: link.peek()?.name ?? link.label,
      role: link.former ? 'former' : link === preferred ? 'preferred' : 'stand_in',
      state: working === undefined ? 'unused' : working ? 'working' : 'failing',
      breaker: link.breaker(),
      since: since ?? null,
      last_failure: lastFailure ?? null,
    };
  });
  const role = preferred ? 'stand_in' : 'preferred';
  const builtIn = {
    provider: 'hashed',
    model: HASHED_MODEL,
    role,
    state: 'working',
    breaker: 'closed',
  } as const;
  return [...links, { ...builtIn, since: null, last_failure: null }];
}
