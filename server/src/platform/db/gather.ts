import { isDatabaseUnavailable } from '../errors.ts';

/** Work on many requests' items of one tenant at once; answers in the order of the items. */
export type GatheredWork<Item, Result> = (tenant: string, items: Item[]) => Promise<Result[]>;

interface Waiting<Item, Result> {
  item: Item;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

/**
 * Groups what concurrent requests of a tenant ask for into one statement or transaction. Nothing is delayed: an item
 * that finds no work under way starts at once; those that come while work is under way go together when it ends.
 * When a group fails, each of its items is tried alone, so that one bad item fails alone.
 * @param lanes how many groups of a tenant may be under way at once
 * @param most items in a group
 */
export function createGatherer<Item, Result>(work: GatheredWork<Item, Result>, lanes = 2, most = 200) {
  const queues = new Map<string, { waiting: Waiting<Item, Result>[]; running: number }>();

  const run = async (tenant: string, group: Waiting<Item, Result>[]): Promise<void> => {
    try {
      const results = await work(
        tenant,
        group.map(({ item }) => item),
      );
      for (const [i, { resolve }] of group.entries()) resolve(results[i]!);
    } catch (error) {
      // Whether a lost database did the work is unknown: doing it again is for the caller to decide.
      if (group.length === 1 || isDatabaseUnavailable(error)) {
        for (const { reject } of group) reject(error);
        return;
      }
      for (const one of group) await run(tenant, [one]);
    }
  };

  const drain = (tenant: string): void => {
    const queue = queues.get(tenant);
    if (!queue) return;
    while (queue.running < lanes && queue.waiting.length > 0) {
      queue.running += 1;
      run(tenant, queue.waiting.splice(0, most)).finally(() => {
        queue.running -= 1;
        if (queue.running === 0 && queue.waiting.length === 0) queues.delete(tenant);
        else drain(tenant);
      });
    }
  };

  return (tenant: string, item: Item): Promise<Result> =>
    new Promise((resolve, reject) => {
      let queue = queues.get(tenant);
      if (!queue) {
        queue = { waiting: [], running: 0 };
        queues.set(tenant, queue);
      }
      queue.waiting.push({ item, resolve, reject });
      drain(tenant);
    });
}
