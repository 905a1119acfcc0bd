import type { Db } from '#platform/db/database.ts';
import { sql } from '#platform/db/sql.ts';

export interface SigningKey {
  kid: string;
  public_jwk: unknown;
  private_jwk: Buffer;
  /** From when on it signs, until one that follows it does. */
  signs_from: string;
}

/** Those that are not retired, the latest to sign first. */
export const listSigningKeys = (operator: Db): Promise<SigningKey[]> =>
  operator.rows(sql<SigningKey>`
    select kid, public_jwk, private_jwk, signs_from from signing_keys where retired_at is null
    order by signs_from desc, kid`);

export interface NewSigningKey {
  kid: string;
  public_jwk: Record<string, unknown>;
  private_jwk: Buffer;
  /** The key it takes over from; empty for the first. */
  follows: string;
  signs_from: Date;
  now: Date;
}

/** Answers nothing when another key follows that one already. */
export const insertSigningKey = (tx: Db, key: NewSigningKey): Promise<{ kid: string } | undefined> =>
  tx.one(sql<{ kid: string }>`
    insert into signing_keys (kid, algorithm, public_jwk, private_jwk, follows, signs_from, created_at)
    values (${key.kid}, 'EdDSA', ${key.public_jwk}, ${key.private_jwk}, ${key.follows}, ${key.signs_from}, ${key.now})
    on conflict (follows) do nothing returning kid`);

/** Retires keys whose successor signs since before `before`: no token of theirs lives. Answers which. */
export const retireSucceeded = (operator: Db, before: Date, now: Date): Promise<{ kid: string }[]> =>
  operator.rows(sql<{ kid: string }>`
    update signing_keys set retired_at = ${now}, private_jwk = null
    where retired_at is null and exists (
      select 1 from signing_keys successor where successor.follows = signing_keys.kid and successor.signs_from < ${before})
    returning kid`);

/** Retires all keys but one at once. Answers which. */
export const retireOthers = (tx: Db, kid: string, now: Date): Promise<{ kid: string }[]> =>
  tx.rows(sql<{ kid: string }>`
    update signing_keys set retired_at = ${now}, private_jwk = null where retired_at is null and kid <> ${kid}
    returning kid`);
