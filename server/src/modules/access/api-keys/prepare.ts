import type { Ctx } from '#platform/context.ts';
import { hmac } from '#platform/crypto.ts';
import { fact } from '#platform/facts/record.ts';
import { uuidv7 } from '#platform/ids.ts';
import { makeKeyText } from './secret.ts';
import { insertApiKey } from './store.ts';

export interface KeyInput {
  identity_id: string;
  name: string;
  scopes?: string[];
  expires_in_days?: number;
  /** Instead of days. */
  expires_at?: Date | null;
  self_serve?: boolean;
}

/** Prepares a key: its text, shown once, and the statements that store its keyed hash, answering its row, and the fact. */
export function prepareApiKey(ctx: Ctx, input: KeyInput, now: Date) {
  const id = uuidv7();
  const text = makeKeyText(ctx.tenant, id);
  const { identity_id, name, scopes = [], expires_in_days: days, self_serve = false } = input;
  const expires =
    input.expires_at ?? (days === undefined ? null : new Date(now.getTime() + days * 86_400_000));
  return {
    id,
    text,
    statements: [
      insertApiKey({
        tenant_id: ctx.tenant,
        id,
        identity_id,
        name,
        secret_hash: hmac(ctx.app.keys.credential, text),
        scopes,
        expires_at: expires,
        self_serve,
        now,
      }),
      fact(ctx, {
        type: 'api_key.created',
        resource_type: 'api_key',
        resource_id: id,
        after: { name, identity_id, scopes, expires_at: expires?.toISOString() ?? null },
        // The session or key it was made with: what was made with a stolen credential can be found.
        data: { made_with: ctx.actor.credential },
      }),
    ] as const,
  };
}
