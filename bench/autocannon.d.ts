declare module 'autocannon' {
  export interface Request {
    method?: string;
    path: string;
    headers?: Record<string, string>;
    body?: string;
  }
  export interface Options {
    url: string;
    connections: number;
    duration: number;
    sampleInt: number;
    timeout: number;
    requests: Request[];
  }
  /** What the bench reads of a result. Latencies are milliseconds, `duration` seconds. */
  export interface Outcome {
    '2xx': number;
    non2xx: number;
    errors: number;
    timeouts: number;
    duration: number;
    latency: { p50: number; p99: number; mean: number };
  }
  export default function autocannon(options: Options): Promise<Outcome>;
}
