import type { App } from '../context.ts';
import { sql } from '../db/sql.ts';
import { isDatabaseUnavailable } from '../errors.ts';

/** A committed fact with its number, as jobs, webhooks and feeds read it. */
export interface RelayedFact {
  tenant_id: string;
  id: string;
  seq: number;
  type: string;
  resource_type: string;
  resource_id: string | null;
  data: Record<string, unknown>;
  request_id: string | null;
}

/** Takes facts in order. It must be repeatable: after a crash the same facts come again. */
export type FactSink = (facts: RelayedFact[]) => Promise<void>;

const batchSize = 2_000;
/** Facts of the next moments go along. */
const gatherMs = 25;
/**
 * After a pass that took long the next waits longer: many facts together cost far less than the same in many passes. One
 * that took long for few facts only found the database busy, or cold.
 */
const restMost = 1_000;
const many = 50;
const restOf = (passMs: number, facts: number): number =>
  Math.min(restMost, Math.max(gatherMs, (facts < many ? 1 : 9) * passMs));

/**
 * Gives committed facts the next numbers of their tenant and hands them on.
 *
 * Numbers are given after commit, so writers never queue for one, and a reader with a cursor on `seq` misses nothing:
 * a number appears only when all smaller ones of the tenant are visible. The row of `fact_positions` is the lock, so
 * any number of relays may run. `relayed` moves only after the sink has taken the facts.
 */
export function createRelay(app: App, sink: FactSink) {
  let running: Promise<void> | undefined;
  let again = false;
  /** Not before then, on the clock of `performance.now`. */
  let next = 0;
  let timer: NodeJS.Timeout | undefined;
  let soon: NodeJS.Timeout | undefined;
  let stopped = false;

  /** @returns how many facts were handed on */
  const pass = async (): Promise<number> => {
    let more: boolean;
    let count = 0;
    do {
      more = false;
      const tenants = await app.database.operator.rows<{ tenant_id: string }>(sql`
        select tenant_id from (select distinct tenant_id from facts where seq is null limit 500) waiting
        union select tenant_id from fact_positions where relayed < numbered order by tenant_id`);
      let taken: RelayedFact[] = [];
      const handOn = async () => {
        count += await relay(app, taken, sink);
        taken = [];
      };
      for (const { tenant_id } of tenants) {
        if (stopped) return count;
        const facts = await number(app, tenant_id).catch((error) => tellLate(app, error, tenant_id));
        taken.push(...facts);
        more ||= facts.length === batchSize;
        if (taken.length >= batchSize) await handOn();
      }
      await handOn();
    } while (more && !stopped);
    return count;
  };

  const run = () => {
    if (running) {
      again = true;
      return;
    }
    again = false;
    const began = performance.now();
    running = pass()
      .catch((error) => {
        app.log.warn({ err: error }, 'facts could not be relayed yet');
        return 0;
      })
      .then((facts) => {
        running = undefined;
        const ended = performance.now();
        next = ended + restOf(ended - began, facts);
        if (again) nudge();
      });
  };

  const nudge = () => {
    if (stopped || soon) return;
    const waitMs = Math.max(gatherMs, next - performance.now());
    soon = setTimeout(() => {
      soon = undefined;
      run();
    }, waitMs);
  };

  return {
    /** Facts were committed: look soon. */
    nudge,
    start: () => {
      // The poll is the truth; the nudge only saves waiting for it.
      timer = setInterval(nudge, app.config.RELAY_POLL_MS);
      run();
    },
    stop: async () => {
      stopped = true;
      clearInterval(timer);
      clearTimeout(soon);
      await running;
    },
  };
}

/**
 * Numbers what a tenant's facts wait for.
 * @returns those that were not handed on yet, in order; after a whole batch the tenant may have more
 */
async function number(app: App, tenant: string): Promise<RelayedFact[]> {
  // Separate statements of one transaction: the second waits for the lock, the third sees what the former holder did.
  const [, , , { rows }] = await app.database.operator.batch([
    sql`insert into fact_positions (tenant_id) values (${tenant}) on conflict (tenant_id) do nothing`,
    sql`select numbered from fact_positions where tenant_id = ${tenant} for update`,
    // No join: of a tenant newer than the last ANALYZE the planner thinks it has one fact, and would compare all with all. A
    // fact's place among the ordered ids is found by halving (width_bucket).
    sql`
      with waiting as materialized (
        select array(
          select id from facts where tenant_id = ${tenant} and seq is null order by id limit ${batchSize}
        ) as ids
      ), moved as (
        update fact_positions set numbered = numbered + (select cardinality(ids) from waiting)
        where tenant_id = ${tenant} returning numbered - (select cardinality(ids) from waiting) as base
      )
      update facts set seq = (select base from moved) + width_bucket(id, (select ids from waiting))
      where tenant_id = ${tenant} and id = any((select ids from waiting)::uuid[])`,
    sql<RelayedFact>`
      select tenant_id, id, seq, type, resource_type, resource_id, data, request_id from facts
      where tenant_id = ${tenant} and seq > (select relayed from fact_positions where tenant_id = ${tenant})
      order by seq limit ${batchSize}`,
  ]);
  return rows;
}

/**
 * Hands on the facts of tenants, all together: what follows from them costs far less than by each tenant's alone. Where that
 * fails, each alone, so that what one tenant's facts run into does not hold up the others.
 * @returns how many facts were handed on
 */
async function relay(app: App, facts: RelayedFact[], sink: FactSink): Promise<number> {
  if (facts.length === 0) return 0;
  const byTenant = [...Map.groupBy(facts, ({ tenant_id }) => tenant_id).values()];
  const last = byTenant.map((own) => own.at(-1)!);
  try {
    await sink(facts);
    await app.database.operator.run(sql`
      update fact_positions set relayed = greatest(relayed, r.seq)
      from unnest(${last.map(({ tenant_id }) => tenant_id)}::text[], ${last.map(({ seq }) => seq)}::bigint[]) as r (tenant_id, seq)
      where fact_positions.tenant_id = r.tenant_id`);
  } catch (error) {
    if (byTenant.length === 1 || isDatabaseUnavailable(error)) {
      tellLate(app, error, last[0]!.tenant_id);
      return 0;
    }
    let relayed = 0;
    for (const own of byTenant) relayed += await relay(app, own, sink);
    return relayed;
  }
  app.metrics.factsRelayed.inc(facts.length);
  return facts.length;
}

function tellLate(app: App, error: unknown, tenant_id: string): [] {
  app.log.warn({ err: error, tenant_id }, "a tenant's facts could not be relayed yet");
  return [];
}
