import type { FastifyRequest } from 'fastify';
import type { Ctx } from '#platform/context.ts';
import { ApiError, type FieldProblem, invalid, notFound } from '#platform/errors.ts';
import { type ForwardedReply, type ForwardedRequest, forward, refusalIn } from '#platform/http/forward.ts';
import { Answer } from '#platform/http/route.ts';
import { type Memory, mayHaveSensitive } from '../memory/service.ts';
import { type Selection, selectionIn, selectionOf, splitMetadata } from './entities.ts';
import type { Add, Entities, List, ListPage, Search, Update } from './schema.ts';

/** The type of a memory that a message is. */
const messageType = 'message';

/** Memories of one page of those to be deleted. */
const batch = 1_000;

type Send = (request: ForwardedRequest) => Promise<ForwardedReply>;

/** Asks the routes of memories as the caller; what they refuse is refused here. A write takes the Idempotency-Key that came. */
export function sender(ctx: Ctx, raw: FastifyRequest): Send {
  checkProject(ctx, raw);
  return async (request) => {
    const key = request.method === 'GET' ? undefined : raw.headers['idempotency-key'];
    const headers: Record<string, string> = typeof key === 'string' ? { 'idempotency-key': key } : {};
    const reply = await forward(ctx, raw, { headers, ...request });
    const refusal = refusalIn(reply);
    if (refusal) throw refusal;
    return reply;
  };
}

/** What a client is told of where it is: some do not start without. */
export const projectOf = ({ tenant }: Ctx) => ({ org_id: tenant, project_id: 'default' });

/** The credential says which project is meant; who names another must not be answered as if it had not. */
function checkProject(ctx: Ctx, { body, query }: FastifyRequest): void {
  const own = projectOf(ctx);
  const problems = [body, query].flatMap((part) =>
    (Object.keys(own) as (keyof typeof own)[]).filter((name) => {
      const given = (part as Record<string, unknown> | undefined | null)?.[name] ?? own[name];
      return given !== own[name];
    }),
  );
  if (problems.length > 0)
    throw invalid(
      problems.map((name) => ({ path: `/${name}`, message: 'is not that of the key: leave it out' })),
    );
}

const pathOf = (id: string, below = ''): string => `/v1/memory/${encodeURIComponent(id)}${below}`;

/** A memory as mem0 has it. */
function shown(memory: Memory) {
  const { names, metadata } = splitMetadata(memory.metadata);
  return {
    id: memory.id,
    memory: memory.text,
    ...names,
    run_id: memory.session_id,
    metadata,
    categories: [],
    ...(memory.score === null ? {} : { score: memory.score }),
    ...(memory.role === null ? {} : { role: memory.role }),
    expiration_date: memory.expires_at?.slice(0, 10) ?? null,
    created_at: memory.created_at,
    updated_at: memory.updated_at,
  };
}

/** The end of that day: mem0 keeps a memory to the end of its last day. */
function expiryOf(day: string | null | undefined): { expires_at?: string | null } {
  if (day == null) return day === null ? { expires_at: null } : {};
  const end = new Date(`${day}T23:59:59.999Z`);
  if (Number.isNaN(end.getTime()) || !end.toISOString().startsWith(day) || end <= new Date())
    throw invalid([{ path: '/expiration_date', message: 'must be a day that is not over, in UTC' }]);
  return { expires_at: end.toISOString() };
}

const timeOf = (seconds: number | null | undefined) =>
  typeof seconds === 'number' ? { occurred_at: new Date(seconds * 1_000).toISOString() } : {};

/**
 * Stores the messages, one memory each, and has facts inferred from them unless `infer` is false. The messages can be
 * found when this answers; facts follow. Of messages that are sensitive none are inferred, which only who asks for it is told.
 */
export async function add(send: Send, input: Add) {
  const { session_id, metadata = {} } = selectionOf(input, input.metadata);
  const messages =
    typeof input.messages === 'string'
      ? [{ role: 'user' as const, content: input.messages }]
      : input.messages;
  const common = {
    metadata,
    ...(session_id ? { session_id } : {}),
    ...expiryOf(input.expiration_date ?? undefined),
  };
  const at = timeOf(input.timestamp);
  const asTheyAre = () =>
    store(
      send,
      messages.map(({ role, content }) => ({ text: content, type: messageType, role, ...common, ...at })),
    );
  const {
    stored,
    failed = [],
    status,
  } = await (input.infer === false
    ? asTheyAre()
    : infer(send, {
        messages: messages.map(({ role, content }) => ({ role, content, ...at })),
        ...common,
      }).catch((error) => {
        if (input.infer === undefined && isAboutInferring(error)) return asTheyAre();
        throw error;
      }));
  return {
    message: failed.length > 0 ? 'Some messages are not stored; see failed.' : 'The messages are stored.',
    status,
    event_id: stored[0]!.id,
    results: stored.map(({ id, index }) => {
      const { content, role } = messages[index]!;
      return { id, memory: content, event: 'ADD', role };
    }),
    ...(failed.length > 0 ? { failed } : {}),
  };
}

/** The messages could be stored, but nothing inferred from them. */
function isAboutInferring(error: unknown): boolean {
  if (!(error instanceof ApiError)) return false;
  const problems = (error.details?.errors as FieldProblem[] | undefined) ?? [];
  return problems.length > 0 && problems.every(({ path }) => path === '/infer');
}

interface Failed {
  index: number;
  error: { code: string; message: string };
}

interface Stored {
  stored: { id: string; index: number }[];
  failed?: Failed[];
  status: string;
}

/** @throws ApiError 422 where nothing could be stored: what is wrong with the first */
async function store(send: Send, memories: object[]): Promise<Stored> {
  const { body } = await send({ method: 'POST', path: '/v1/memory/bulk', body: { memories } }).catch(
    (error: ApiError) => {
      if (error.code !== 'NOTHING_STORED') throw error;
      const [first] = error.details!.failed as Failed[];
      throw new ApiError(422, first!.error.code, first!.error.message);
    },
  );
  const { created, failed } = body as { created: Stored['stored']; failed: Failed[] };
  return { stored: created, failed, status: 'SUCCEEDED' };
}

async function infer(send: Send, conversation: object): Promise<Stored> {
  const { body } = await send({ method: 'POST', path: '/v1/memory/infer', body: conversation });
  const { memory_ids, inference_status } = body as { memory_ids: string[]; inference_status: string };
  return {
    stored: memory_ids.map((id, index) => ({ id, index })),
    status: inference_status === 'pending' ? 'PENDING' : 'SUCCEEDED',
  };
}

/** What has become of an `add`. Its id is that of the first message. */
export async function getEvent(send: Send, id: string) {
  const { body } = await send({ method: 'GET', path: pathOf(id) }).catch((error: ApiError) => {
    throw error.status === 404 ? notFound('Event') : error;
  });
  const { inference_status } = body as Memory;
  const status =
    inference_status === 'pending' ? 'PENDING' : inference_status === 'failed' ? 'FAILED' : 'SUCCEEDED';
  return { id, event_type: 'ADD', status };
}

/** What is asked of names and filters. */
export const selectedBy = ({ filters, ...named }: Pick<Search, 'filters'> & Entities): Selection =>
  selectionIn(filters ?? {}, named);

/**
 * Finds memories. Messages of the caller's own that are sensitive are found as well, also where messages are not any more:
 * they are in no index, so they are looked through apart, and what is found of both is one list.
 */
export async function search(
  ctx: Ctx,
  raw: FastifyRequest,
  { query, top_k, limit: most, threshold, ...rest }: Search,
) {
  const send = sender(ctx, raw);
  const limit = top_k ?? most ?? 10;
  const wanted = {
    query,
    ...selectedBy(rest),
    limit,
    ...(typeof threshold === 'number' ? { similarity_threshold: threshold } : {}),
  };
  const find = async (more: object = {}) =>
    (await send({ method: 'POST', path: '/v1/memory/search', body: { ...wanted, ...more } }))
      .body as Memory[];
  const { identity_id } = ctx.actor;
  const isSealed = identity_id !== undefined && (await mayHaveSensitive(ctx, identity_id, messageType));
  const sealed = isSealed ? await find({ type: messageType, identity_id, sensitive: true }) : [];
  const all = new Map([...(await find()), ...sealed].map((memory) => [memory.id, memory]));
  const best = [...all.values()].sort((a, b) => b.score! - a.score!).slice(0, limit);
  return { results: best.map(shown) };
}

/** Former clients read a list with nothing round it, unless they ask for `v1.1`. */
export const bareUnless = <R>(isWrapped: boolean, answer: { results: R[] }): R[] | { results: R[] } =>
  isWrapped ? answer : answer.results;

const listing = ({ session_id, metadata }: Selection) => ({
  session_id,
  ...(metadata ? { metadata: JSON.stringify(metadata) } : {}),
});

export async function list(
  send: Send,
  selection: Selection,
  path: string,
  { page = 1, page_size = 100 }: ListPage,
) {
  const skip = (page - 1) * page_size;
  const query = { ...listing(selection), skip, limit: page_size };
  const reply = await send({ method: 'GET', path: '/v1/memory/', query });
  const results = (reply.body as Memory[]).map(shown);
  const isLast = reply.headers['x-next-cursor'] === undefined;
  const pageAt = (n: number) => `${path}?page=${n}&page_size=${page_size}`;
  return {
    // Nobody counts them all to show a few; a page beyond the last does not know where that was.
    count: isLast && (page === 1 || results.length > 0) ? skip + results.length : null,
    next: isLast ? null : pageAt(page + 1),
    previous: page === 1 ? null : pageAt(page - 1),
    results,
  };
}

/** As former clients list: a page where they ask for one, else the newest, with nothing round them unless they ask for `v1.1`. */
export async function listBare(
  send: Send,
  selection: Selection,
  path: string,
  { page, page_size, output_format }: Pick<List, 'page' | 'page_size' | 'output_format'>,
) {
  if (page !== undefined || page_size !== undefined) return list(send, selection, path, { page, page_size });
  return bareUnless(output_format === 'v1.1', await listNewest(send, selection));
}

export async function listNewest(send: Send, selection: Selection) {
  const query = { ...listing(selection), limit: batch };
  const { body } = await send({ method: 'GET', path: '/v1/memory/', query });
  return { results: (body as Memory[]).map(shown) };
}

export async function get(send: Send, id: string) {
  const { body } = await send({ method: 'GET', path: pathOf(id) });
  return shown(body as Memory);
}

export async function update(send: Send, id: string, { text, metadata, expiration_date, timestamp }: Update) {
  const body: Record<string, unknown> = { ...expiryOf(expiration_date), ...timeOf(timestamp) };
  if (text !== undefined) body.text = text;
  if (metadata) {
    // Metadata is replaced as a whole; whose it is stands there, and stays.
    const { body: before } = await send({ method: 'GET', path: pathOf(id) });
    const { names } = splitMetadata((before as Memory).metadata);
    body.metadata = {
      ...metadata,
      ...Object.fromEntries(Object.entries(names).filter(([, value]) => value !== null)),
    };
  }
  const reply = await send({ method: 'PUT', path: pathOf(id), body });
  return { message: 'Memory updated successfully!', ...shown(reply.body as Memory) };
}

export async function remove(send: Send, id: string) {
  await send({ method: 'DELETE', path: pathOf(id) });
  return { message: 'Memory deleted successfully!' };
}

/** Page by page; a broken request has deleted some, and is repeated for the rest. */
export async function removeAll(send: Send, entities: Entities) {
  const query = { ...listing(selectionOf(entities)), limit: batch };
  for (;;) {
    const { body } = await send({ method: 'GET', path: '/v1/memory/', query });
    const memory_ids = (body as Memory[]).map(({ id }) => id);
    if (memory_ids.length === 0) break;
    const reply = await send({
      method: 'POST',
      path: '/v1/memory/bulk-delete',
      body: { memory_ids },
      headers: {},
    });
    const { deleted_count } = reply.body as { deleted_count: number };
    // Those that are left are seen, but not to be deleted by this caller.
    if (deleted_count < memory_ids.length || memory_ids.length < batch) break;
  }
  return { message: 'Memories deleted successfully!' };
}

interface Version {
  version: number;
  text: string;
  metadata: Record<string, unknown>;
  change: string;
  valid_from: string;
}

/** What a memory was, oldest first. */
export async function history(send: Send, id: string): Promise<Answer> {
  const { body } = await send({ method: 'GET', path: pathOf(id, '/history'), query: { limit: batch } });
  const versions = (body as Version[]).reverse();
  const entries = versions.map(({ version, text, metadata, change, valid_from }, i) => ({
    id: `${id}:${version}`,
    memory_id: id,
    old_memory: versions[i - 1]?.text ?? null,
    new_memory: text,
    event: ['created', 'imported', 'inferred'].includes(change) && i === 0 ? 'ADD' : 'UPDATE',
    input: [],
    user_id: splitMetadata(metadata).names.user_id,
    created_at: versions[0]!.valid_from,
    updated_at: valid_from,
  }));
  return new Answer(200, entries);
}
