import type { FastifyRequest } from 'fastify';
import type { Ctx } from '#platform/context.ts';
import type { Answer, Stream } from '#platform/http/route.ts';

export { challengeOf, resourceMetadata } from './resource.ts';

/** Answers one POST of a client. The SDK of the protocol is loaded for the first: it takes a start a tenth of a second. */
export const answerMcp = async (ctx: Ctx, raw: FastifyRequest): Promise<Answer | Stream> =>
  (await import('./protocol.ts')).answerMcp(ctx, raw);
