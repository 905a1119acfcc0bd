import { PgBoss, type QueueResult } from 'pg-boss';
import { type App, type Ctx, systemCtx } from '../context.ts';
import type { FactSink, RelayedFact } from '../facts/relay.ts';
import { queuesWithWork } from './states.ts';

/** Work that follows from a fact. It must be repeatable: it may be killed at any point and started again. */
export interface JobDefinition {
  name: string;
  /** The types of fact it follows from. */
  follows: string[];
  /** `tenant`: one waiting job a tenant is enough, it does all there is. `fact`: one job a fact, with the fact's id. */
  per: 'tenant' | 'fact';
  concurrency: number;
  /** Longest time one attempt may take. */
  timeoutS: number;
  retries: number;
  run: (ctx: Ctx, payload: JobPayload) => Promise<void>;
  /** Called once when the last attempt failed, so that what waits for the job can be told. */
  failed?: (ctx: Ctx, payload: JobPayload, reason: unknown) => Promise<void>;
}

export interface JobPayload {
  tenant_id: string;
  fact_id: string;
  resource_id: string | null;
  data: Record<string, unknown>;
}

/** The queue of a process: fed by the relay, worked by `work`. */
export interface JobQueue {
  sink: FactSink;
  work(): Promise<void>;
  /**
   * Makes jobs by hand, for schedules that mend what an earlier crash left, and for work that goes on later.
   * @param afterMs not to be begun before; whole seconds, rounded up
   */
  enqueue(name: string, payloads: JobPayload[], afterMs?: number): Promise<void>;
  /** Begins no more jobs; resolves when those at work are done. */
  drain(): Promise<void>;
  stop(graceMs: number): Promise<void>;
}

/**
 * How often a process looks for jobs that nobody told it of: made elsewhere, or due again. One statement for all queues,
 * where each worker of the queue asking for itself would keep an idle embedded database busy.
 */
const lookMs = 1_000;
/** The workers' own looking, which nothing depends on. */
const pollingIntervalSeconds = 60;

/** Opens the queue (pg-boss, schema `pgboss`) over the operator's connections. */
export async function openJobs(
  app: App,
  definitions: JobDefinition[],
  options: { supervise: boolean },
): Promise<JobQueue> {
  const boss = new PgBoss({
    db: { executeSql: (text, values) => app.database.operatorPool.query(text, values as unknown[]) },
    backend: app.database.engine === 'embedded' ? 'pglite' : 'postgres',
    supervise: options.supervise,
    schedule: false,
    superviseIntervalSeconds: 5,
    monitorIntervalSeconds: 5,
  } as ConstructorParameters<typeof PgBoss>[0]);
  boss.on('error', (error) => {
    // What a worker could not fetch comes as a plain object.
    const err = Object.assign(new Error(error.message), error);
    app.log.warn({ err }, 'the job queue had a failure and goes on');
  });
  await boss.start();
  const known = new Map((await boss.getQueues()).map((queue) => [queue.name, queue]));
  for (const definition of definitions) await declareQueue(boss, definition, known.get(definition.name));
  // The queue's own timer looks for dead workers' jobs an interval after the start only: workers that die sooner, one
  // after another, would never give back what those before them held.
  if (options.supervise)
    boss
      .supervise()
      .catch((error) => app.log.warn({ err: error }, 'jobs of dead workers are looked for later'));
  const workers = new Map<string, string[]>();
  let look: NodeJS.Timeout | undefined;
  const wake = (name: string) => {
    for (const id of workers.get(name) ?? []) boss.notifyWorker(id);
  };

  const stopLooking = () => {
    clearTimeout(look);
    look = undefined;
  };

  const insert = async (definition: JobDefinition, payloads: JobPayload[], afterMs = 0) => {
    const later = afterMs > 0 ? { startAfter: Math.ceil(afterMs / 1_000) } : {};
    const wanted = definition.per === 'tenant' ? onePerTenant(payloads) : payloads;
    if (wanted.length === 0) return;
    await boss.insert(
      definition.name,
      wanted.map((data) =>
        definition.per === 'tenant'
          ? { data, singletonKey: data.tenant_id, ...later }
          : { id: data.fact_id, data, ...later },
      ),
    );
    wake(definition.name);
  };

  return {
    sink: async (facts) => {
      for (const definition of definitions) {
        await insert(
          definition,
          facts.filter(({ type }) => definition.follows.includes(type)).map(payloadOf),
        );
      }
    },
    enqueue: async (name, payloads, afterMs) => {
      const definition = definitions.find((known) => known.name === name);
      if (!definition) throw new Error(`no job is named ${name}`);
      await insert(definition, payloads, afterMs);
    },
    work: async () => {
      for (const definition of definitions) {
        const ids: string[] = [];
        for (let i = 0; i < definition.concurrency; i++) {
          ids.push(
            await boss.work<JobPayload>(
              definition.name,
              { pollingIntervalSeconds, batchSize: 1, includeMetadata: true, heartbeatRefreshSeconds: 4 },
              async ([job]) => {
                // Looks for the next at once: otherwise a worker does one job a second, however short they are.
                boss.notifyWorker(ids[i]!);
                if (job) await perform(app, definition, job as unknown as FetchedJob);
              },
            ),
          );
        }
        workers.set(definition.name, ids);
      }
      const lookAround = async () => {
        try {
          for (const name of await queuesWithWork(app, [...workers.keys()])) wake(name);
        } catch (error) {
          app.log.warn({ err: error }, 'jobs could not be looked for');
        }
        if (look) look = setTimeout(lookAround, lookMs);
      };
      look = setTimeout(lookAround, lookMs);
    },
    drain: async () => {
      stopLooking();
      await Promise.all([...workers.keys()].map((name) => boss.offWork(name)));
    },
    stop: async (graceMs) => {
      stopLooking();
      await boss.stop({ graceful: graceMs > 0, timeout: Math.max(graceMs, 1), close: false });
    },
  };
}

interface FetchedJob {
  id: string;
  data: JobPayload;
  retryCount: number;
  retryLimit: number;
  signal: AbortSignal;
}

async function declareQueue(
  boss: PgBoss,
  { name, per, timeoutS, retries }: JobDefinition,
  known: QueueResult | undefined,
): Promise<void> {
  const options = {
    retryLimit: retries,
    retryDelay: 1,
    retryBackoff: true,
    // A worker's death counts as a failure too: what several of them held must not wait for long.
    retryDelayMax: 60,
    expireInSeconds: timeoutS,
    // A worker that was killed is found by its missing heartbeat, long before the job's own limit.
    heartbeatSeconds: 10,
    retentionSeconds: 14 * 86_400,
    deleteAfterSeconds: 7 * 86_400,
  };
  // `short`: one waiting job a tenant and any number at work. A policy that also limits those at work would let the job
  // of a killed worker hold its tenant up until its heartbeat is missed.
  if (!known) await boss.createQueue(name, { ...options, policy: per === 'tenant' ? 'short' : 'standard' });
  else if (Object.entries(options).some(([option, value]) => known[option as keyof typeof options] !== value))
    await boss.updateQueue(name, options);
}

async function perform(app: App, definition: JobDefinition, job: FetchedJob): Promise<void> {
  const stop = app.metrics.jobDuration.startTimer({ job: definition.name });
  const ctx = systemCtx(app, job.data.tenant_id, job.id, AbortSignal.any([app.closing, job.signal]));
  try {
    await definition.run(ctx, job.data);
    app.metrics.jobs.inc({ job: definition.name, outcome: 'done' });
  } catch (error) {
    const last = job.retryCount >= job.retryLimit && !app.closing.aborted;
    app.metrics.jobs.inc({ job: definition.name, outcome: last ? 'failed' : 'retried' });
    ctx.log.warn({ err: error, job: definition.name, attempt: job.retryCount + 1, last }, 'a job failed');
    if (last) await definition.failed?.(ctx, job.data, error);
    throw error;
  } finally {
    stop();
  }
}

const payloadOf = (fact: RelayedFact): JobPayload => ({
  tenant_id: fact.tenant_id,
  fact_id: fact.id,
  resource_id: fact.resource_id,
  data: fact.data,
});

const onePerTenant = (payloads: JobPayload[]): JobPayload[] => [
  ...new Map(payloads.map((payload) => [payload.tenant_id, payload])).values(),
];
