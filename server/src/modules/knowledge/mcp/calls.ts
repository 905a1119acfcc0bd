import type { FastifyRequest } from 'fastify';
import type { Ctx } from '#platform/context.ts';
import { sha256 } from '#platform/crypto.ts';
import { perApp } from '#platform/per-app.ts';

/** Word that a client does not want the answer of a call any more. */
const CALL_CANCELLED = 'mcp.cancelled';

/** Names a client, from its `initialize` on. Nothing is kept under it: two clients of one key number their calls alike. */
export const SESSION_HEADER = 'mcp-session-id';

/** The calls this process works on that may be cancelled, which any process may be told. */
const callsHere = perApp((app) => {
  const calls = new Map<string, AbortController>();
  app.shared.onInvalidate((topic, key) => {
    if (topic === CALL_CANCELLED) calls.get(key)?.abort();
  });
  return calls;
});

/** Which call of which client; undefined for clients that do not say who they are. */
function keyOf({ tenant, actor }: Ctx, { headers }: FastifyRequest, id: string | number): string | undefined {
  const session = headers[SESSION_HEADER];
  if (typeof session !== 'string') return undefined;
  return sha256(JSON.stringify([tenant, actor.identity_id, session, id])).toString('hex');
}

/** Works on a call, with a signal that is aborted when its client cancels it. */
export async function cancellable<T>(
  ctx: Ctx,
  raw: FastifyRequest,
  id: string | number,
  work: (cancelled: AbortSignal) => Promise<T>,
): Promise<T> {
  const calls = callsHere(ctx.app);
  const key = keyOf(ctx, raw, id);
  const call = new AbortController();
  if (key !== undefined) calls.set(key, call);
  try {
    return await work(call.signal);
  } finally {
    if (key !== undefined && calls.get(key) === call) calls.delete(key);
  }
}

/** Ends a call of the same client, in whatever process it is. */
export function cancelCall(ctx: Ctx, raw: FastifyRequest, id: string | number): void {
  const key = keyOf(ctx, raw, id);
  if (key !== undefined) ctx.app.shared.invalidate(CALL_CANCELLED, key);
}
