import type { FastifyRequest } from 'fastify';

const bearer = /^Bearer +([\x21-\x7e]{1,8192}) *$/i;
const bearerOrToken = /^(?:Bearer|Token) +([\x21-\x7e]{1,8192}) *$/i;

/**
 * What a request carries as `Authorization: Bearer` (RFC 6750): undefined when the header is not there, empty when it has no
 * known form or came more than once. Of several Node takes the first; whoever checked the request on its way here may
 * have taken the last.
 * @param tokenScheme where clients say `Token` instead
 */
export function bearerOf({ headers, raw }: FastifyRequest, tokenScheme = false): string | undefined {
  const { authorization } = headers;
  if (authorization === undefined) return undefined;
  if (isRepeated(raw.rawHeaders, 'authorization')) return '';
  return (tokenScheme ? bearerOrToken : bearer).exec(authorization)?.[1] ?? '';
}

/** The one credential of a request: undefined when there is none, empty when it has no known form or there are two. */
export function credentialOf(request: FastifyRequest, tokenScheme = false): string | undefined {
  const token = bearerOf(request, tokenScheme);
  const given = request.headers['x-api-key'];
  if (given === undefined) return token;
  const key = typeof given === 'string' && given.length <= 8192 ? given.trim() : '';
  return token === undefined || token === key ? key : '';
}

/** @param names names and values in turn, as they came */
function isRepeated(names: string[], name: string): boolean {
  let count = 0;
  for (let i = 0; i < names.length; i += 2)
    if (names[i]!.length === name.length && names[i]!.toLowerCase() === name) count += 1;
  return count > 1;
}
