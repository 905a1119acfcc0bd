import { type FieldProblem, invalid } from '#platform/errors.ts';
import type { Entities } from './schema.ts';

/** Names that are kept in the metadata of a memory; `run_id` is its session. */
const kept = ['user_id', 'agent_id', 'app_id'] as const;

const isKept = (name: string): name is (typeof kept)[number] => (kept as readonly string[]).includes(name);

/** Which memories are meant, as the routes of memories are asked. */
export interface Selection {
  session_id?: string;
  metadata?: Record<string, unknown>;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** @throws ApiError 422 where nothing says whose memories are meant, or `*` says that anybody's are, as mem0 reads it */
function requireEntity(entities: Entities): void {
  const given = [...kept, 'run_id' as const].filter((name) => entities[name]);
  if (given.length === 0)
    throw invalid([{ path: '/user_id', message: 'is required, or agent_id, app_id or run_id' }]);
  const open = given.filter((name) => entities[name] === '*');
  if (open.length > 0)
    throw invalid(
      open.map((name) => ({ path: `/${name}`, message: 'must name one: * is not supported here' })),
    );
}

/** The names that were given; null and left out are the same. */
function named(entities: Entities, metadata?: Record<string, unknown> | null): Selection {
  const names = kept.flatMap((name) => (entities[name] ? [[name, entities[name]] as const] : []));
  const all = { ...metadata, ...Object.fromEntries(names) };
  return {
    ...(entities.run_id ? { session_id: entities.run_id } : {}),
    ...(Object.keys(all).length > 0 ? { metadata: all } : {}),
  };
}

/** @throws ApiError 422 where they name nobody */
export function selectionOf(entities: Entities, metadata?: Record<string, unknown> | null): Selection {
  requireEntity(entities);
  return named(entities, metadata);
}

/**
 * What filters select of what is named beside them. Of mem0's language the part that the store answers by itself: equal
 * names, equal metadata, and AND.
 * @throws ApiError 422 that names what is beyond it, or differs from what was named before; also where both name nobody
 */
export function selectionIn(filters: Record<string, unknown>, entities: Entities): Selection {
  const names: Entities = { ...entities };
  const metadata = new Map(Object.entries(named(entities).metadata ?? {}));
  const problems: FieldProblem[] = [];
  const refuse = (path: string): void => {
    problems.push({
      path,
      message: 'is not supported here: give equal values of user_id, agent_id, app_id, run_id, metadata',
    });
  };
  const differs = (name: string, value: unknown) => metadata.has(name) && metadata.get(name) !== value;
  const takeMetadata = (wanted: Record<string, unknown>, path: string): void => {
    for (const [name, value] of Object.entries(wanted)) {
      // mem0 writes comparisons as objects.
      if (isObject(value) || differs(name, value)) refuse(`${path}/${name}`);
      else metadata.set(name, value);
    }
  };
  const takeOne = (name: string, value: unknown, path: string): void => {
    if (name === 'metadata' && isObject(value)) takeMetadata(value, path);
    else if (typeof value !== 'string' || value === '' || value === '*') refuse(path);
    else if (name === 'run_id' && (names.run_id ?? value) === value) names.run_id = value;
    else if (isKept(name) && !differs(name, value)) {
      names[name] = value;
      metadata.set(name, value);
    } else refuse(path);
  };
  const take = (part: unknown, path: string): void => {
    if (!isObject(part)) refuse(path);
    else {
      for (const [name, value] of Object.entries(part)) {
        const parts = name === 'AND' || name === 'OR' ? value : undefined;
        if (!Array.isArray(parts)) takeOne(name, value, `${path}/${name}`);
        else if (name === 'OR' && parts.length !== 1) refuse(`${path}/OR`);
        else for (const [i, one] of parts.entries()) take(one, `${path}/${name}/${i}`);
      }
    }
  };
  take(filters, '/filters');
  if (problems.length > 0) throw invalid(problems);
  requireEntity(names);
  return {
    ...(names.run_id ? { session_id: names.run_id } : {}),
    ...(metadata.size > 0 ? { metadata: Object.fromEntries(metadata) } : {}),
  };
}

/** The metadata of a client, and the names beside it. */
export function splitMetadata(metadata: Record<string, unknown>): {
  names: Record<(typeof kept)[number], unknown>;
  metadata: Record<string, unknown>;
} {
  const { user_id = null, agent_id = null, app_id = null, ...rest } = metadata;
  return { names: { user_id, agent_id, app_id }, metadata: rest };
}
