import { Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';
import { route } from '#platform/http/route.ts';
import { getAudio } from './audio.ts';
import { Run, RunCreate, RunStatus, RunWithMessages } from './schema.ts';
import {
  cancelRun,
  getRun,
  listVisibleRuns,
  readRunEvents,
  removeRun,
  removeSession,
  resumeRun,
  startRun,
} from './service.ts';

const tag = 'runs';
const { limit, cursor } = pageQuery(25, 100);
const params = T.Object({ run_id: T.String() });
const headers = { 'Last-Event-ID': 'The id of the last event that was read, to go on after it' };

const lastEventIdOf = ({ headers }: { headers: Record<string, unknown> }): string | undefined => {
  const given = headers['last-event-id'];
  return given === undefined ? undefined : String(given);
};

export const runRoutes = [
  route({
    method: 'POST',
    path: '/v1/run',
    name: 'run',
    summary: 'Answer a message from a corpus and memories, streamed as server-sent events',
    tag,
    permission: 'runs:create',
    alsoNeeds: [
      { permission: 'documents:read', when: 'of a corpus' },
      { permission: 'corpora:read', when: 'of a corpus' },
      { permission: 'memory:search', when: 'to recall' },
      { permission: 'memory:create', when: 'to remember' },
    ],
    routeClass: 'run',
    cost: 3,
    // To go on with a run is to read.
    costOf: (request) => (lastEventIdOf(request) === undefined ? 3 : 1),
    idempotent: 'manual',
    legacy: true,
    produces: 'text/event-stream',
    headers,
    body: RunCreate,
    response: {
      200: T.String({
        description:
          'Events request.accepted, token.delta (any number), message.final, audio.ready or audio.error (with audio), done; ' +
          'or error and done. Each has the data {type, request_id, session_id, data, seq} and the id run:seq; heartbeats ' +
          'have {ts, request_id, seq} and no id. With Last-Event-ID: what came after that event, or resume.unsupported and done. ' +
          'With the Idempotency-Key of an earlier request: the events of its run, from the first on.',
      }),
      204: null,
    },
    handler: async (ctx, { body, raw }) => {
      const lastEventId = lastEventIdOf(raw);
      return lastEventId === undefined
        ? startRun(ctx, raw, body)
        : resumeRun(ctx, lastEventId, body.session_id);
    },
  }),
  route({
    method: 'GET',
    path: '/v1/runs',
    name: 'list_runs',
    summary: 'Runs the caller may see, newest first',
    tag,
    permission: 'runs:list',
    decidesRows: true,
    envelope: true,
    query: T.Object(
      { limit, cursor, session_id: T.Optional(T.String({ maxLength: 200 })), status: T.Optional(RunStatus) },
      { additionalProperties: false },
    ),
    response: { 200: T.Array(Run) },
    handler: (ctx, { query }) => listVisibleRuns(ctx, query),
  }),
  route({
    method: 'GET',
    path: '/v1/runs/:run_id',
    name: 'get_run',
    summary: 'One run with its messages',
    tag,
    permission: 'runs:read',
    decidesRows: true,
    envelope: true,
    params,
    response: { 200: RunWithMessages },
    handler: (ctx, { params }) => getRun(ctx, params.run_id),
  }),
  route({
    method: 'DELETE',
    path: '/v1/runs/:run_id',
    name: 'delete_run',
    summary: 'Remove a run that is over, with its messages, events and audio',
    tag,
    permission: 'runs:delete',
    decidesRows: true,
    params,
    response: { 204: null },
    handler: (ctx, { params }) => removeRun(ctx, params.run_id),
  }),
  route({
    method: 'GET',
    path: '/v1/runs/:run_id/events',
    name: 'get_run_events',
    summary: 'The events of a run, from wherever the reader was, as server-sent events',
    tag,
    permission: 'runs:read',
    decidesRows: true,
    produces: 'text/event-stream',
    headers,
    params,
    query: T.Object(
      {
        after: T.Optional(
          T.Integer({
            minimum: 0,
            maximum: 999_999_999,
            default: 0,
            description: 'The seq of the last event that was read; the header Last-Event-ID counts before it',
          }),
        ),
      },
      { additionalProperties: false },
    ),
    response: {
      200: T.String({
        description: 'The events of POST /v1/run that came after; or resume.unsupported and done',
      }),
      204: null,
    },
    handler: (ctx, { params, query, raw }) =>
      readRunEvents(ctx, params.run_id, lastEventIdOf(raw), query.after ?? 0),
  }),
  route({
    method: 'POST',
    path: '/v1/runs/:run_id/cancel',
    name: 'cancel_run',
    summary: 'Cancel a run that is going on',
    tag,
    permission: 'runs:cancel',
    decidesRows: true,
    envelope: true,
    params,
    response: { 200: RunWithMessages },
    handler: (ctx, { params }) => cancelRun(ctx, params.run_id),
  }),
  route({
    method: 'DELETE',
    path: '/v1/runs',
    name: 'delete_run_session',
    summary: 'Remove a session of the caller, with all its runs',
    tag,
    permission: 'runs:delete',
    decidesRows: true,
    query: T.Object(
      { session_id: T.String({ minLength: 1, maxLength: 200 }) },
      { additionalProperties: false },
    ),
    response: { 204: null },
    handler: (ctx, { query }) => removeSession(ctx, query.session_id),
  }),
  route({
    method: 'GET',
    path: '/v1/audio/:audio_id.mp3',
    name: 'get_audio',
    summary: 'A spoken answer, whole or a range of it',
    tag,
    permission: 'runs:read',
    decidesRows: true,
    legacy: true,
    produces: 'audio/mpeg',
    headers: { Range: 'One range of bytes', 'If-Range': 'The ETag the range is of' },
    params: T.Object({ audio_id: T.String() }),
    response: { 200: T.String({ format: 'binary' }), 206: T.String({ format: 'binary' }) },
    handler: (ctx, { params, raw }) => getAudio(ctx, params.audio_id, raw),
  }),
];
