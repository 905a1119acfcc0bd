import type { App } from '../context.ts';
import { sql } from '../db/sql.ts';

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
        union select tenant_id from fact_positions where relayed < numbered`);
      for (const { tenant_id } of tenants) {
        if (stopped) return count;
        // What one tenant's facts run into must not hold up the others.
        await relayTenant(app, tenant_id, sink).then(
          (relayed) => {
            count += relayed;
            more ||= relayed === batchSize;
          },
          (error) => app.log.warn({ err: error, tenant_id }, "a tenant's facts could not be relayed yet"),
        );
      }
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

/** @returns how many facts were handed on; after a whole batch the tenant may have more */
async function relayTenant(app: App, tenant: string, sink: FactSink): Promise<number> {
  const { operator } = app.database;
  // Separate statements of one transaction: the second waits for the lock, the third sees what the former holder did.
  await operator.batch([
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
  ]);
  const facts = await operator.rows<RelayedFact>(sql`
    select tenant_id, id, seq, type, resource_type, resource_id, data, request_id from facts
    where tenant_id = ${tenant} and seq > (select relayed from fact_positions where tenant_id = ${tenant})
    order by seq limit ${batchSize}`);
  if (facts.length === 0) return 0;
  await sink(facts);
  await operator.run(sql`
    update fact_positions set relayed = greatest(relayed, ${facts.at(-1)!.seq}) where tenant_id = ${tenant}`);
  app.metrics.factsRelayed.inc(facts.length);
  return facts.length;
}
