import type pg from 'pg';
import { isBroken, type Result, sendBatch } from './batch.ts';
import { createGatherer } from './gather.ts';
import type { Statement } from './sql.ts';

type Batch = readonly Statement<unknown>[];
type Answer = PromiseSettledResult<Result<unknown>[]>;

/**
 * Short batches of many tenants over few connections. Each is still a transaction of its own (its own Sync, see Pipelining in
 * the Frontend/Backend Protocol), and fails alone; but those that come while others are under way are written with one
 * system call and answered by one back end, one after the other. Nothing is delayed: what finds a connection free goes at once.
 * Only for what is always quick and changes nothing, since each waits for those before it.
 * @param lanes how many connections may be busy with it at once
 * @param most batches a trip
 */
export function createSharedTrips(pool: pg.Pool, lanes = 2, most = 32) {
  const gather = createGatherer<Batch, Answer>((_, batches) => trip(pool, batches), lanes, most);
  return async (statements: Batch): Promise<Result<unknown>[]> => {
    const answer = await gather(everybody, statements);
    if (answer.status === 'rejected') throw answer.reason;
    return answer.value;
  };
}

/** All tenants wait in one queue. */
const everybody = '';

async function trip(pool: pg.Pool, batches: Batch[]): Promise<Answer[]> {
  const client = await pool.connect();
  const { stream } = (client as unknown as { connection: { stream: { cork(): void; uncork(): void } } })
    .connection;
  stream.cork();
  const sent = batches.map((statements) => sendBatch(client, statements));
  stream.uncork();
  const answers = await Promise.allSettled(sent);
  client.release(answers.some((answer) => answer.status === 'rejected' && isBroken(answer.reason)));
  return answers;
}
