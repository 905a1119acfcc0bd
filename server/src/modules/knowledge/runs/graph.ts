import { Annotation, END, START, StateGraph } from '@langchain/langgraph';
import type { Db } from '#platform/db/database.ts';
import { type CommitCheckpoint, TenantCheckpoints } from './checkpoints.ts';

// Identifiers only: texts stay in their own tables, so a checkpoint is small and holds nobody's words.
const State = Annotation.Root({
  run_id: Annotation<string>(),
  history_ids: Annotation<string[]>(),
  chunk_ids: Annotation<string[]>(),
  answer_id: Annotation<string | null>(),
});

/** What the steps of a run do; each returns the ids of what it found or made. All must stop when `signal` aborts. */
export interface RunSteps {
  load(signal: AbortSignal): Promise<string[]>;
  retrieve(signal: AbortSignal): Promise<string[]>;
  generate(signal: AbortSignal): Promise<void>;
  persist(signal: AbortSignal): Promise<string>;
}

/**
 * Takes a run through load, retrieve, generate and persist. The thread's checkpoint is written once, at the end
 * (durability `exit`): nothing between the steps is worth a round trip, since an interrupted run is not continued.
 */
export async function walkGraph(
  steps: RunSteps,
  thread: string,
  runId: string,
  db: Db,
  commit: CommitCheckpoint,
  signal: AbortSignal,
): Promise<void> {
  type Config = { signal?: AbortSignal };
  const of = (config: Config) => config.signal ?? signal;
  const graph = new StateGraph(State)
    // The state of the thread's earlier run is still there: everything is set anew.
    .addNode('load', async (_: unknown, config: Config) => ({
      history_ids: await steps.load(of(config)),
      chunk_ids: [],
      answer_id: null,
    }))
    .addNode('retrieve', async (_: unknown, config: Config) => ({
      chunk_ids: await steps.retrieve(of(config)),
    }))
    .addNode('generate', async (_: unknown, config: Config) => {
      await steps.generate(of(config));
      return {};
    })
    .addNode('persist', async (_: unknown, config: Config) => ({
      answer_id: await steps.persist(of(config)),
    }))
    .addEdge(START, 'load')
    .addEdge('load', 'retrieve')
    .addEdge('retrieve', 'generate')
    .addEdge('generate', 'persist')
    .addEdge('persist', END)
    .compile({ checkpointer: new TenantCheckpoints(db, commit) });
  await graph.invoke({ run_id: runId }, { configurable: { thread_id: thread }, durability: 'exit', signal });
}
