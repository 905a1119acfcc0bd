import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';
import type { VectorScope } from './collection.ts';

/** Tenants with vectors that are not of the preferred model, and could be; for the operator. */
export const listTenantsToRenew = (operator: Db, preferred: string): Promise<{ tenant_id: string }[]> =>
  operator.rows(sql<{ tenant_id: string }>`
    select distinct tenant_id from vector_spaces
    where model <> ${preferred} and drained_at is null and settled_for is distinct from ${preferred} and tenant_id is not null
    limit 500`);

/** Spaces of a tenant whose texts should be embedded anew. */
export const listSpacesToRenew = (db: Db, preferred: string): Promise<{ scope: string; model: string }[]> =>
  db.rows(sql<{ scope: string; model: string }>`
    select scope, model from vector_spaces
    where tenant_id = ${db.tenant} and model <> ${preferred} and drained_at is null
      and settled_for is distinct from ${preferred} order by scope, model`);

/** Vectors of a model to be replaced, from an id on; `done`: the text has one of the preferred model already. */
export const listToRenew = (
  db: Db,
  { collection: c, within }: VectorScope,
  model: string,
  preferred: string,
  after: string | undefined,
  limit: number,
): Promise<{ id: string; done: boolean }[]> =>
  db.rows(sql<{ id: string; done: boolean }>`
    select old.id, exists (
      select 1 from ${c.vectors} where v.tenant_id = ${db.tenant} and ${c.key} = old.id and v.model = ${preferred}
    ) as done
    from (
      select ${c.key} as id from ${c.vectors}
      where v.tenant_id = ${db.tenant} and v.model = ${model} and v.refused_by is distinct from ${preferred} ${within}
        and ${c.key} > ${after ?? '00000000-0000-0000-0000-000000000000'}::uuid
      order by ${c.key} limit ${limit}
    ) old`);

export const deleteVectorsOf = (
  tenant: string,
  { collection: c }: VectorScope,
  model: string,
  ids: string[],
): Statement => sql`
  delete from ${c.vectors} where v.tenant_id = ${tenant} and v.model = ${model} and ${c.key} = any(${ids}::uuid[])`;

/** Remembers that the preferred model does not take these texts. */
export const markRefused = (
  tenant: string,
  { collection: c }: VectorScope,
  model: string,
  preferred: string,
  ids: string[],
): Statement => sql`
  update ${c.vectors} set refused_by = ${preferred}
  where v.tenant_id = ${tenant} and v.model = ${model} and ${c.key} = any(${ids}::uuid[])`;

export const countRenewed = (
  tenant: string,
  scope: string,
  model: string,
  number: number,
  now: Date,
  until: Date,
): Statement => sql`
  update vector_spaces set renewed = renewed + ${number}, renewed_at = ${now}, renewing_until = ${until}
  where tenant_id = ${tenant} and scope = ${scope} and model = ${model}`;

/** @returns a row unless somebody else renews the space */
export const claimRenewal = (
  tenant: string,
  scope: string,
  model: string,
  now: Date,
  until: Date,
): Statement<{ scope: string }> => sql<{ scope: string }>`
  update vector_spaces set renewing_until = ${until}
  where tenant_id = ${tenant} and scope = ${scope} and model = ${model}
    and (renewing_until is null or renewing_until < ${now}) returning scope`;

export const releaseRenewal = (tenant: string, scope: string, model: string): Statement => sql`
  update vector_spaces set renewing_until = null
  where tenant_id = ${tenant} and scope = ${scope} and model = ${model}`;

/** Keeps others from saying that a space has vectors until the transaction ends. */
export const lockSpace = (
  tenant: string,
  scope: string,
  model: string,
): Statement<{ renewed: number }> => sql<{
  renewed: number;
}>`
  select renewed from vector_spaces
  where tenant_id = ${tenant} and scope = ${scope} and model = ${model} for update`;

/** Whether a model has vectors in a scope at all, and such that the preferred one may still take. */
export async function whatIsLeft(
  tx: Db,
  { collection: c, within }: VectorScope,
  model: string,
  preferred: string,
): Promise<{ any: boolean; renewable: boolean }> {
  const found = await tx.one(sql<{ any: boolean; renewable: boolean }>`
    select exists (
        select 1 from ${c.vectors} where v.tenant_id = ${tx.tenant} and v.model = ${model} ${within}
      ) as any,
      exists (
        select 1 from ${c.vectors} where v.tenant_id = ${tx.tenant} and v.model = ${model} ${within}
          and v.refused_by is distinct from ${preferred}
      ) as renewable`);
  return found!;
}

export const settleSpace = (
  tenant: string,
  scope: string,
  model: string,
  preferred: string,
  drained: boolean,
  now: Date,
): Statement => sql`
  update vector_spaces set settled_for = ${preferred}, drained_at = case when ${drained}::boolean then ${now}::timestamptz end
  where tenant_id = ${tenant} and scope = ${scope} and model = ${model}`;
