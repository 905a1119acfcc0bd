import { isDatabaseUnavailable } from '../errors.ts';

/** Work on many requests' items at once, of one tenant or whoever else goes together; answers in the order of the items. */
export type GatheredWork<Item, Result> = (together: string, items: Item[]) => Promise<Result[]>;

interface Waiting<Item, Result> {
  item: Item;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

/**
 * Groups what concurrent requests ask for, of those that go together, into one statement or transaction. Nothing is delayed: an item
 * that finds no work under way starts at once; those that come while work is under way go together when it ends.
 * When a group fails, each of its items is tried alone, so that one bad item fails alone.
 * @param lanes how many groups of those that go together may be under way at once
 * @param most items in a group
 */
export function createGatherer<Item, Result>(work: GatheredWork<Item, Result>, lanes = 2, most = 200) {
  const queues = new Map<string, { waiting: Waiting<Item, Result>[]; running: number }>();

  const run = async (together: string, group: Waiting<Item, Result>[]): Promise<void> => {
    try {
      const results = await work(
        together,
        group.map(({ item }) => item),
      );
      for (const [i, { resolve }] of group.entries()) resolve(results[i]!);
    } catch (error) {
      // Whether a lost database did the work is unknown: doing it again is for the caller to decide.
      if (group.length === 1 || isDatabaseUnavailable(error)) {
        for (const { reject } of group) reject(error);
        return;
      }
      for (const one of group) await run(together, [one]);
    }
  };

  const drain = (together: string): void => {
    const queue = queues.get(together);
    if (!queue) return;
    while (queue.running < lanes && queue.waiting.length > 0) {
      queue.running += 1;
      run(together, queue.waiting.splice(0, most)).finally(() => {
        queue.running -= 1;
        if (queue.running === 0 && queue.waiting.length === 0) queues.delete(together);
        else drain(together);
      });
    }
  };

  return (together: string, item: Item): Promise<Result> =>
    new Promise((resolve, reject) => {
      let queue = queues.get(together);
      if (!queue) {
        queue = { waiting: [], running: 0 };
        queues.set(together, queue);
      }
      queue.waiting.push({ item, resolve, reject });
      drain(together);
    });
}
