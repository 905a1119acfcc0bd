import type { RunnableConfig } from '@langchain/core/runnables';
import {
  BaseCheckpointSaver,
  type Checkpoint,
  type CheckpointListOptions,
  type CheckpointMetadata,
  type CheckpointPendingWrite,
  type CheckpointTuple,
  type PendingWrite,
  WRITES_IDX_MAP,
} from '@langchain/langgraph-checkpoint';
import type { Db } from '#platform/db/database.ts';
import { type Statement, sql } from '#platform/db/sql.ts';

interface CheckpointRow {
  id: string;
  namespace: string;
  parent_id: string | null;
  checkpoint: Buffer;
  metadata: Buffer;
}

interface WriteRow {
  checkpoint_id: string;
  task_id: string;
  channel: string;
  value: Buffer;
}

export type CommitCheckpoint = (statements: Statement[]) => Promise<void>;

/**
 * Keeps the last checkpoint of each thread in our own tables, as one tenant. A class because LangGraph wants one.
 *
 * `commit` decides what happens to the statements of a checkpoint: they can be committed together with what the run
 * itself changed, or dropped when the run left nothing worth going on from.
 */
export class TenantCheckpoints extends BaseCheckpointSaver {
  private readonly db: Db;
  private readonly commit: CommitCheckpoint;

  constructor(db: Db, commit: CommitCheckpoint) {
    super();
    this.db = db;
    this.commit = commit;
  }

  async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    for await (const tuple of this.list(config, { limit: 1 })) return tuple;
    return undefined;
  }

  /** Checkpoints of one thread, newest first; their ids (UUID version 6) sort by time. `filter` compares metadata. */
  async *list(config: RunnableConfig, options: CheckpointListOptions = {}): AsyncGenerator<CheckpointTuple> {
    const { thread, namespace } = placeOf(config);
    const only: string | undefined = config.configurable?.checkpoint_id;
    const before: string | undefined = options.before?.configurable?.checkpoint_id;
    const [checkpoints, writes] = await this.db.batch([
      sql<CheckpointRow>`
        select id, namespace, parent_id, checkpoint, metadata from run_checkpoints
        where tenant_id = ${this.db.tenant} and thread_id = ${thread} and namespace = ${namespace}
          and (${only}::text is null or id = ${only}::text) and (${before}::text is null or id < ${before}::text)
        order by id desc limit ${options.filter ? null : (options.limit ?? null)}`,
      sql<WriteRow>`
        select checkpoint_id, task_id, channel, value from run_checkpoint_writes
        where tenant_id = ${this.db.tenant} and thread_id = ${thread} and namespace = ${namespace}
        order by checkpoint_id, task_id, position`,
    ]);
    let left = options.limit ?? Number.POSITIVE_INFINITY;
    for (const row of checkpoints.rows) {
      if (left <= 0) return;
      const tuple = await this.tupleOf(thread, row, writes.rows);
      const { filter } = options;
      const fits = Object.entries(filter ?? {}).every(
        ([name, value]) => (tuple.metadata as Record<string, unknown> | undefined)?.[name] === value,
      );
      if (!fits) continue;
      left -= 1;
      yield tuple;
    }
  }

  private async tupleOf(thread: string, row: CheckpointRow, writes: WriteRow[]): Promise<CheckpointTuple> {
    const at = (id: string) => ({
      configurable: { thread_id: thread, checkpoint_ns: row.namespace, checkpoint_id: id },
    });
    const own = writes.filter(({ checkpoint_id }) => checkpoint_id === row.id);
    return {
      config: at(row.id),
      checkpoint: await this.serde.loadsTyped('json', row.checkpoint),
      metadata: await this.serde.loadsTyped('json', row.metadata),
      pendingWrites: await Promise.all(
        own.map(
          async ({ task_id, channel, value }): Promise<CheckpointPendingWrite> => [
            task_id,
            channel,
            await this.serde.loadsTyped('json', value),
          ],
        ),
      ),
      ...(row.parent_id === null ? {} : { parentConfig: at(row.parent_id) }),
    };
  }

  /** Stores a checkpoint and drops the thread's earlier ones: a thread only ever goes on from its last. */
  async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
  ): Promise<RunnableConfig> {
    const { thread, namespace } = placeOf(config);
    const [state, about] = await Promise.all([this.bytesOf(checkpoint), this.bytesOf(metadata)]);
    const { tenant } = this.db;
    await this.commit([
      sql`
        insert into run_checkpoints (tenant_id, thread_id, namespace, id, parent_id, checkpoint, metadata, created_at)
        values (${tenant}, ${thread}, ${namespace}, ${checkpoint.id}, ${config.configurable?.checkpoint_id}, ${state}, ${about}, ${new Date()})
        on conflict (tenant_id, thread_id, namespace, id) do update set checkpoint = excluded.checkpoint, metadata = excluded.metadata`,
      sql`delete from run_checkpoints where tenant_id = ${tenant} and thread_id = ${thread} and namespace = ${namespace} and id <> ${checkpoint.id}`,
      sql`delete from run_checkpoint_writes where tenant_id = ${tenant} and thread_id = ${thread} and namespace = ${namespace} and checkpoint_id <> ${checkpoint.id}`,
    ]);
    return { configurable: { thread_id: thread, checkpoint_ns: namespace, checkpoint_id: checkpoint.id } };
  }

  /** Stores what tasks wrote after a checkpoint. A regular write is kept as it was first made, a special one is replaced. */
  async putWrites(config: RunnableConfig, writes: PendingWrite[], taskId: string): Promise<void> {
    const { thread, namespace } = placeOf(config);
    const checkpoint: string = config.configurable?.checkpoint_id;
    const statements = await Promise.all(
      writes.map(async ([channel, value], index) => {
        const bytes = await this.bytesOf(value);
        const position = WRITES_IDX_MAP[channel] ?? index;
        return sql`
          insert into run_checkpoint_writes as w (tenant_id, thread_id, namespace, checkpoint_id, task_id, position, channel, value)
          values (${this.db.tenant}, ${thread}, ${namespace}, ${checkpoint}, ${taskId}, ${position}, ${channel}, ${bytes})
          on conflict (tenant_id, thread_id, namespace, checkpoint_id, task_id, position) do update
            set channel = excluded.channel, value = excluded.value where w.position < 0`;
      }),
    );
    await this.commit(statements);
  }

  async deleteThread(threadId: string): Promise<void> {
    await this.db.batch([
      sql`delete from run_checkpoint_writes where tenant_id = ${this.db.tenant} and thread_id = ${threadId}`,
      sql`delete from run_checkpoints where tenant_id = ${this.db.tenant} and thread_id = ${threadId}`,
    ]);
  }

  private async bytesOf(value: unknown): Promise<Buffer> {
    const [, bytes] = await this.serde.dumpsTyped(value);
    return Buffer.from(bytes);
  }
}

function placeOf({ configurable }: RunnableConfig): { thread: string; namespace: string } {
  const thread = configurable?.thread_id;
  if (typeof thread !== 'string' || thread === '') throw new Error('a run graph needs a thread_id');
  return { thread, namespace: configurable?.checkpoint_ns ?? '' };
}
