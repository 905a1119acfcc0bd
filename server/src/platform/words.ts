// The words by which processes tell each other, over Redis, that something cached is no longer true.
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Log } from './log.ts';

const channel = 'manushya:invalidate';

/**
 * A connection without an answer for `silentMs` is given up, so that nobody waits for it any more, and made anew until Redis
 * answers on it. Until then what is asked fails at once.
 */
export const connection = (silentMs: number) => ({
  connectTimeout: 2_000,
  socketTimeout: silentMs,
  retryStrategy: (attempt: number) => Math.min(attempt * 100, 1_000),
});

const mostUnsent = 10_000;

/**
 * Sends words to all processes. One that could not be sent is sent again until Redis has taken it: another process may
 * well hear Redis while this one does not, and trusts its caches for long.
 */
export function speaker(client: Redis, log: Log) {
  /** Words not taken yet, each with the number of its last saying: one said again meanwhile must go out again. */
  const unsent = new Map<string, number>();
  let said = 0;
  let timer: NodeJS.Timeout | undefined;
  const send = async (word: string, number: number) => {
    try {
      await client.publish(channel, word);
      if (unsent.get(word) === number) unsent.delete(word);
    } catch {
      timer ??= setTimeout(sendAll, 250).unref();
    }
  };
  const sendAll = () => {
    timer = undefined;
    if (client.status !== 'ready') return;
    for (const [word, number] of unsent) void send(word, number);
  };
  client.on('ready', sendAll);
  return {
    say: (word: string) => {
      if (unsent.size >= mostUnsent) {
        unsent.clear();
        unsent.set('* *', ++said);
      }
      unsent.set(word, ++said);
      void send(word, said);
    },
    /** A process that ends right after a change, as a command does, must not take the word with it. */
    close: async () => {
      const until = performance.now() + 2_000;
      while (unsent.size > 0 && performance.now() < until) await sleep(10);
      clearTimeout(timer);
      if (unsent.size > 0) log.warn('other processes learn of a change only when their caches age');
    },
  };
}

const pingMs = 400;
const deafAfterMs = 1_200;

/** Hears the words of other processes, and knows when it may miss some. */
export function listener(url: string, tell: (topic: string, key: string) => void, log: Log) {
  const subscriber = new Redis(url, {
    ...connection(5_000),
    maxRetriesPerRequest: null,
    // Subscribed to by hand, so that what was missed before is known.
    autoResubscribe: false,
  });
  let subscribed = false;
  let closed = false;
  /** All words until then have been heard: answers and words come in order. */
  let heardUntil = Number.NEGATIVE_INFINITY;
  let asked: number | undefined;
  subscriber.on('error', () => {
    // Reported by the other connection; this one only carries words that caches also learn by their age.
  });
  subscriber.on('close', () => {
    subscribed = false;
    asked = undefined;
    heardUntil = Number.NEGATIVE_INFINITY;
  });
  subscriber.on('ready', async () => {
    const now = performance.now();
    try {
      await subscriber.subscribe(channel);
    } catch (error) {
      if (closed) return;
      log.warn({ err: error }, 'words about changes can not be received yet');
      subscriber.disconnect(true);
      return;
    }
    // Words were lost until this very moment.
    tell('*', '*');
    subscribed = true;
    heardUntil = now;
  });
  subscriber.on('message', (_, message) => {
    const at = message.indexOf(' ');
    tell(message.slice(0, at), message.slice(at + 1));
  });
  // A connection can be open and silent for minutes: without an answer nothing says that words would arrive.
  const pinging = setInterval(() => {
    const now = performance.now();
    if (!subscribed || asked !== undefined) return;
    asked = now;
    subscriber.ping().then(
      () => {
        if (asked !== now) return;
        asked = undefined;
        heardUntil = now;
      },
      () => {},
    );
  }, pingMs);
  pinging.unref();
  return {
    hears: () => performance.now() - heardUntil < deafAfterMs,
    close: () => {
      closed = true;
      clearInterval(pinging);
      subscriber.disconnect();
    },
  };
}
