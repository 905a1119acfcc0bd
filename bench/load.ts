/** The load generator: a process of its own, so that it shares no event loop with what it measures. */
import autocannon, { type Outcome, type Request } from 'autocannon';

export interface LoadOrder {
  url: string;
  requests: Request[];
  connections: number;
  seconds: number;
}

export interface LoadResult {
  /** Requests answered with 2xx, and the seconds they took. */
  done: number;
  seconds: number;
  p50_ms: number;
  p99_ms: number;
}

const resultOf = (outcome: Outcome, url: string): LoadResult => {
  const wrong = outcome.non2xx + outcome.errors + outcome.timeouts;
  // A failing call is cheaper than a working one: a figure with failures in it would flatter.
  if (wrong > 0) throw new Error(`${wrong} of ${outcome['2xx'] + wrong} requests to ${url} failed`);
  const { p50, p99 } = outcome.latency;
  return { done: outcome['2xx'], seconds: outcome.duration, p50_ms: p50, p99_ms: p99 };
};

let requests: Request[] = [];

process.on('message', async ({ url, connections, seconds, ...order }: LoadOrder) => {
  // Sent once and kept: an order without requests repeats the last ones.
  if (order.requests.length > 0) requests = order.requests;
  try {
    const outcome = await autocannon({
      url,
      connections,
      requests,
      duration: seconds,
      sampleInt: 50,
      timeout: 20,
    });
    process.send!({ value: resultOf(outcome, url) });
  } catch (error) {
    process.send!({ error: (error as Error).message });
  }
});
