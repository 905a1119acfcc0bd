import { type Actor, type Authenticated, type Ctx, inTenant } from '#platform/context.ts';
import { ApiError } from '#platform/errors.ts';
import { chargeOperation, limitAddress } from '#platform/http/limits.ts';
import { fitsOwn, scopeProblem } from '../api-keys/service.ts';
import { type Delegated, exchangeGrant, type TokenExchange, tokenTypes } from './schema.ts';
import { defaultScopes, delegate } from './service.ts';

const refuse = (code: string, message: string, status = 400) => new ApiError(status, code, message);

/** The same words whatever was wrong with it. */
const badGrant = () => refuse('INVALID_GRANT', 'The subject_token is not valid here.');

const perHourAndAddress = 10_000;

/**
 * Token exchange (RFC 8693): the agent brings the credential of a person and its own, and gets a token that acts for the
 * person and names both. Whoever holds a person's credential could act as that person; this makes it less, and known.
 * @throws ApiError in the form of OAuth: invalid_client, invalid_grant, invalid_scope, invalid_target, …
 */
export async function exchangeToken(
  ctx: Ctx,
  input: TokenExchange,
  ownCredential: string,
): Promise<Delegated> {
  await limitAddress(ctx, 'oauth:token', perHourAndAddress);
  checkRequest(ctx, input);
  const actor = await authenticated(ctx, input.actor_token ?? ownCredential);
  // An agent acts by its own credential: one that was lent to it does not say who it is.
  if (!actor || actor.actor.delegation)
    throw refuse('INVALID_CLIENT', 'The agent has to send a credential of its own.', 401);
  const subject = await authenticated(ctx, input.subject_token ?? '');
  if (!subject || subject.tenant !== actor.tenant) throw badGrant();
  const asSubject = inTenant(ctx, subject.tenant, subject.actor);
  await ctx.app.features.prepare(asSubject);
  await chargeOperation(asSubject, 'oauth:token', 1);
  const scopes = withinOwn(actor.actor, scopesOf(input.scope));
  try {
    return await delegate(asSubject, actor.actor.identity_id!, scopes ? { scopes } : {});
  } catch (error) {
    if (!(error instanceof ApiError) || error.status >= 429) throw error;
    throw error.status === 403
      ? refuse('ACCESS_DENIED', error.message, 403)
      : refuse('INVALID_REQUEST', error.message);
  }
}

function checkRequest({ app }: Ctx, input: TokenExchange): void {
  if (input.grant_type !== exchangeGrant)
    throw refuse('UNSUPPORTED_GRANT_TYPE', `Only ${exchangeGrant} is taken here.`);
  const { subject_token, subject_token_type, actor_token, actor_token_type, requested_token_type } = input;
  const types: string[] = Object.values(tokenTypes);
  const isKnown = (type: string | undefined) => type !== undefined && types.includes(type);
  if (!subject_token || !isKnown(subject_token_type))
    throw refuse(
      'INVALID_REQUEST',
      'subject_token and its subject_token_type, an access token, are required.',
    );
  // RFC 8693, section 2.1: with a token its type, and not without.
  if ((actor_token === undefined) !== (actor_token_type === undefined))
    throw refuse('INVALID_REQUEST', 'actor_token and actor_token_type come together.');
  if (actor_token_type !== undefined && !isKnown(actor_token_type))
    throw refuse('INVALID_REQUEST', 'actor_token_type must be that of an access token.');
  if (requested_token_type !== undefined && !isKnown(requested_token_type))
    throw refuse('INVALID_REQUEST', 'Only access tokens are given.');
  for (const target of [input.audience, input.resource])
    if (target !== undefined && target !== app.config.publicUrl && target !== 'manushya')
      throw refuse('INVALID_TARGET', 'Tokens are given for this server only.');
}

function scopesOf(scope: string | undefined): string[] | undefined {
  const scopes = scope?.split(' ').filter(Boolean) ?? [];
  if (scopes.length === 0) return undefined;
  const bad = scopes.find((one) => scopeProblem(one) !== undefined);
  if (bad !== undefined || scopes.length > 50)
    throw refuse('INVALID_SCOPE', 'Scopes are read, write, admin, or resource:action, separated by spaces.');
  return scopes;
}

/** A narrowed key of the agent is not widened by what somebody lends to it. */
function withinOwn(agent: Actor, wanted: string[] | undefined): string[] | undefined {
  if (!agent.scopes?.length) return wanted;
  if (!wanted) return fitsOwn(agent, defaultScopes) ? defaultScopes : agent.scopes;
  if (fitsOwn(agent, wanted)) return wanted;
  throw refuse('INVALID_SCOPE', `The key of the agent is limited to ${agent.scopes.join(' ')}.`);
}

/** Whoever a credential stands for. Without one nobody is looked for. */
async function authenticated({ app, request }: Ctx, credential: string): Promise<Authenticated | undefined> {
  if (credential === '') return undefined;
  const from = { ip: request!.ip, headers: { 'user-agent': request!.user_agent } };
  return app.features.authenticate(app, credential, from);
}
