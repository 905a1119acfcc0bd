import type { Account, Client } from './client.ts';
import { count, type KeyEntry, type Ledger } from './ledger.ts';
import { documentSteps } from './load-documents.ts';
import { memorySteps } from './load-memories.ts';
import { sleep } from './processes.ts';
import type { Random } from './random.ts';

/** One write: what is sent, and what is known by each outcome. */
export interface Task {
  account: Account;
  method: string;
  path: string;
  body?: unknown;
  keyed: boolean;
  /** The status of success. */
  status: number;
  /** It was answered with success. */
  done: (body: any) => void;
  /** It was answered with another status; false: that must not happen. */
  otherwise?: (status: number) => boolean;
}

export interface Doing {
  client: Client;
  ledger: Ledger;
  random: Random;
  accounts: Account[];
  /** Sends a write. With a key it is repeated, now or later, until it has an answer; without one a lost answer leaves it in doubt. */
  write(task: Task): Promise<void>;
}

/** One thing a client does, chosen as often as its weight says. */
export interface Step {
  weight: number;
  run: () => Promise<void>;
}

export interface Load {
  start(clients: number): void;
  /** Lets what is on the way end. */
  stop(): Promise<void>;
  /** Repeats the keyed writes that still have no answer, until they have. Answers how many there were. */
  settle(withinMs: number): Promise<number>;
  unanswered(): KeyEntry[];
}

function chosen(steps: Step[], point: number): Step {
  let at = point;
  for (const step of steps) {
    at -= step.weight;
    if (at < 0) return step;
  }
  return steps[0]!;
}

/** Writers and readers that go on while servers die, and note what they were told. */
export function createLoad(client: Client, accounts: Account[], ledger: Ledger, random: Random): Load {
  const pending: { task: Task; entry: KeyEntry }[] = [];
  const running: Promise<void>[] = [];
  let stopping = false;
  let keys = 0;

  /** @returns whether it has its answer */
  const finish = (task: Task, outcome: Awaited<ReturnType<Client['send']>>): boolean => {
    if (outcome.is !== 'answer') return false;
    if (outcome.status === task.status) task.done(outcome.body);
    else if (!task.otherwise?.(outcome.status)) {
      const said = JSON.stringify(outcome.body)?.slice(0, 300);
      ledger.problems.push(`${task.method} ${task.path} answered ${outcome.status}: ${said}`);
    }
    return true;
  };

  const attempt = async ({ task, entry }: { task: Task; entry: KeyEntry }): Promise<boolean> => {
    const sends = random.chance(0.1) ? 2 : 1;
    const outcomes = await Promise.all(
      Array.from({ length: sends }, () => client.sendKeyed(task.account, entry)),
    );
    const told = outcomes.find(({ is }) => is === 'answer') ?? outcomes[0]!;
    if (!finish(task, told)) return false;
    count(ledger, 'keyed_done');
    if (entry.answer && random.chance(0.1)) await replay(task.account, entry);
    return true;
  };

  const replay = async (account: Account, entry: KeyEntry) => {
    const again = await client.sendKeyed(account, entry);
    if (again.is === 'busy' || (again.is === 'answer' && !again.replayed))
      ledger.problems.push(`key ${entry.key} has an answer and was not replayed: ${JSON.stringify(again)}`);
  };

  const write: Doing['write'] = async (task) => {
    if (!task.keyed) {
      let outcome = await client.send(task.account, task.method, task.path, task.body);
      // Nobody listened, so it was certainly not done: it is sent when the server is back.
      for (let tries = 0; outcome.is === 'refused' && tries < 2_000; tries++) {
        await sleep(20);
        outcome = await client.send(task.account, task.method, task.path, task.body);
      }
      count(ledger, finish(task, outcome) ? 'unkeyed_done' : 'in_doubt');
      return;
    }
    keys += 1;
    const { method, path, body } = task;
    const entry = { key: `key-${keys}`, tenant: task.account.tenant, method, path, body, answer: undefined };
    ledger.keys.push(entry);
    const waiting = { task, entry };
    if (!(await attempt(waiting))) pending.push(waiting);
  };

  const doing: Doing = { client, ledger, random, accounts, write };

  const work = async () => {
    const steps = [...memorySteps(doing), ...documentSteps(doing)];
    const total = steps.reduce((sum, { weight }) => sum + weight, 0);
    while (!stopping) {
      const waiting = random.chance(0.15) ? pending.shift() : undefined;
      if (waiting) {
        if (!(await attempt(waiting))) pending.push(waiting);
      } else {
        await chosen(steps, random.next() * total).run();
      }
      await sleep(random.between(0, 8));
    }
  };

  return {
    start: (clients) => {
      for (let i = 0; i < clients; i++) {
        running.push(work().catch((error) => void ledger.problems.push(`a client failed: ${error.stack}`)));
      }
    },
    stop: async () => {
      stopping = true;
      await Promise.all(running);
    },
    settle: async (withinMs) => {
      const had = pending.length;
      const until = performance.now() + withinMs;
      while (pending.length > 0 && performance.now() < until) {
        const waiting = pending.shift()!;
        if (await attempt(waiting)) continue;
        pending.push(waiting);
        await sleep(50);
      }
      return had;
    },
    unanswered: () => pending.map(({ entry }) => entry),
  };
}
