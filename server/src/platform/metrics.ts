import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** The process's Prometheus metrics. Labels come from closed sets (route patterns, status codes, job names), never from input. */
export interface Metrics {
  registry: Registry;
  requests: Counter<'method' | 'route' | 'status'>;
  duration: Histogram<'method' | 'route'>;
  inFlight: Gauge;
  jobs: Counter<'job' | 'outcome'>;
  jobDuration: Histogram<'job'>;
  factsRelayed: Counter;
  rateLimited: Counter<'scope'>;
  embeddings: Counter<'model' | 'outcome'>;
  embeddingFailures: Counter<'link' | 'kind'>;
  embeddingLinks: Gauge<'link'>;
  embeddingsRenewed: Counter<'model'>;
  reranks: Counter<'outcome'>;
  vectorSearches: Counter<'path'>;
  vectorSegments: Gauge<'state'>;
  vectorDrift: Gauge<'kind'>;
  searchDuration: Histogram<'kind'>;
  runs: Counter<'outcome'>;
  /** By what was hashed with: `argon2` or `bcrypt`. */
  passwordHash: Histogram<'algorithm'>;
  runsInFlight: Gauge;
  runReaders: Gauge;
  runFirstToken: Histogram;
  poolWaiting: Gauge;
  dependencyUp: Gauge<'dependency'>;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const seconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
  return {
    registry,
    requests: new Counter({
      name: 'http_requests_total',
      help: 'Requests answered',
      labelNames: ['method', 'route', 'status'],
      registers,
    }),
    duration: new Histogram({
      name: 'http_request_duration_seconds',
      help: 'Time to answer',
      labelNames: ['method', 'route'],
      buckets: seconds,
      registers,
    }),
    inFlight: new Gauge({ name: 'http_requests_in_flight', help: 'Requests being worked on', registers }),
    jobs: new Counter({ name: 'jobs_total', help: 'Jobs ended', labelNames: ['job', 'outcome'], registers }),
    jobDuration: new Histogram({
      name: 'job_duration_seconds',
      help: 'Time of a job',
      labelNames: ['job'],
      buckets: seconds,
      registers,
    }),
    factsRelayed: new Counter({
      name: 'facts_relayed_total',
      help: 'Facts given their sequence number',
      registers,
    }),
    rateLimited: new Counter({
      name: 'rate_limited_total',
      help: 'Requests refused by a limit',
      labelNames: ['scope'],
      registers,
    }),
    embeddings: new Counter({
      name: 'embeddings_total',
      help: 'Texts embedded',
      labelNames: ['model', 'outcome'],
      registers,
    }),
    embeddingFailures: new Counter({
      name: 'embedding_failures_total',
      help: 'Calls of an embedding model that failed',
      labelNames: ['link', 'kind'],
      registers,
    }),
    embeddingLinks: new Gauge({
      name: 'embedding_link_up',
      help: 'Whether the last call of an embedding model went well',
      labelNames: ['link'],
      registers,
    }),
    embeddingsRenewed: new Counter({
      name: 'embeddings_renewed_total',
      help: 'Texts embedded anew because a fallback or a former model had made their vector',
      labelNames: ['model'],
      registers,
    }),
    reranks: new Counter({
      name: 'reranks_total',
      help: 'Searches whose results a reranker was to read: done, or why it was not',
      labelNames: ['outcome'],
      registers,
    }),
    vectorSearches: new Counter({
      name: 'vector_searches_total',
      help: 'Searches among vectors by the way they went',
      labelNames: ['path'],
      registers,
    }),
    vectorSegments: new Gauge({
      name: 'vector_segments',
      help: 'Index segments of the installation',
      labelNames: ['state'],
      registers,
    }),
    vectorDrift: new Gauge({
      name: 'vector_index_drift',
      help: 'What the last repair of the vector indexes found to be off',
      labelNames: ['kind'],
      registers,
    }),
    searchDuration: new Histogram({
      name: 'vector_search_duration_seconds',
      help: 'Time of a retrieval',
      labelNames: ['kind'],
      buckets: seconds,
      registers,
    }),
    runs: new Counter({ name: 'runs_total', help: 'Runs ended', labelNames: ['outcome'], registers }),
    passwordHash: new Histogram({
      name: 'password_hash_duration_seconds',
      help: 'Time to hash or verify a password',
      labelNames: ['algorithm'],
      buckets: seconds,
      registers,
    }),
    runsInFlight: new Gauge({ name: 'runs_in_flight', help: 'Runs being worked on', registers }),
    runReaders: new Gauge({ name: 'run_readers', help: 'Streams of events that are open', registers }),
    runFirstToken: new Histogram({
      name: 'run_first_token_seconds',
      help: 'Time from the request to the first piece of an answer',
      buckets: seconds,
      registers,
    }),
    poolWaiting: new Gauge({
      name: 'database_pool_waiting',
      help: 'Callers waiting for a connection',
      registers,
    }),
    dependencyUp: new Gauge({
      name: 'dependency_up',
      help: 'Whether the database and Redis answer',
      labelNames: ['dependency'],
      registers,
    }),
  };
}
