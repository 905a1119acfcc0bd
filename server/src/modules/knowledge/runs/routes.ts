import { Type as T } from 'typebox';
import { pageQuery } from '#platform/http/pages.ts';
import { route } from '#platform/http/route.ts';
import { Run, RunCreate, RunStatus, RunWithMessages } from './schema.ts';
import { getRun, listVisibleRuns, refuseResume, startRun } from './service.ts';

const tag = 'runs';
const { limit, cursor } = pageQuery(25, 100);

export const runRoutes = [
  route({
    method: 'POST',
    path: '/v1/run',
    name: 'run',
    summary: 'Answer a message from a corpus, streamed as server-sent events',
    tag,
    permission: 'runs:create',
    routeClass: 'run',
    cost: 3,
    idempotent: false,
    legacy: true,
    produces: 'text/event-stream',
    body: RunCreate,
    response: {
      200: T.String({
        description:
          'Events request.accepted, token.delta (any number), message.final, audio.error (with audio), done; or error and done. ' +
          'Each has the data {type, request_id, session_id, data, seq}; heartbeats have {ts, request_id, seq}.',
      }),
    },
    handler: async (ctx, { body, raw }) =>
      raw.headers['last-event-id'] === undefined ? startRun(ctx, body) : refuseResume(ctx, body.session_id),
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
    params: T.Object({ run_id: T.String() }),
    response: { 200: RunWithMessages },
    handler: (ctx, { params }) => getRun(ctx, params.run_id),
  }),
];
