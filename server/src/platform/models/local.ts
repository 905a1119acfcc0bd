import { basename, join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Config } from '../config.ts';
import { createBreaker, outsideCalls, stateOf } from '../resilience.ts';
import { type EmbeddingLink, type EmbeddingModel, unit } from './embeddings.ts';
import type { FromLocal, LocalSettings, ToLocal } from './local-worker.ts';
import { failureOf, judgeModel, ModelError } from './model-error.ts';

/** Small, so that a query never waits long behind a batch. */
const limits = { inputs: 16, characters: 40_000 };
/** A call that takes longer hangs; the thread is given up. */
const callLimitMs = 120_000;

const installHint =
  'EMBEDDING_LOCAL_MODEL needs the package @huggingface/transformers: ONNXRUNTIME_NODE_INSTALL=skip npm install --no-save @huggingface/transformers';

interface Call {
  texts: string[];
  urgent: boolean;
  resolve: (values: Float32Array) => void;
  reject: (error: Error) => void;
}

interface Thread {
  dimensions: number;
  call(texts: string[], urgent: boolean): Promise<Float32Array>;
  /** Set once it has ended; a new one must be started. */
  ended(): boolean;
  close(): Promise<void>;
}

/** An ONNX model that runs in a thread of this process, through the optional package transformers.js. */
export function localEmbeddings(config: Config, model: string): EmbeddingLink {
  const breaker = createBreaker(judgeModel, config.EMBEDDING_BREAKER_MS);
  const options = { retries: 0, judge: judgeModel, breaker };
  const patient = outsideCalls({ ...options, timeoutMs: callLimitMs });
  const quick = outsideCalls({ ...options, timeoutMs: config.EMBEDDING_QUERY_TIMEOUT_MS });
  const settings: LocalSettings = { model, cacheDir: join(config.dataDir, 'models') };
  let thread: Promise<Thread> | undefined;
  let opened: EmbeddingModel | undefined;

  const running = async (): Promise<Thread> => {
    if (!thread || (await thread.then((one) => one.ended()).catch(() => true)))
      thread = startThread(settings);
    return thread;
  };
  const embed = async (texts: string[], urgent: boolean): Promise<Float32Array[]> => {
    const { call, dimensions } = await running();
    const values = await call(
      texts.map((text) => text.slice(0, config.EMBEDDING_MAX_CHARACTERS)),
      urgent,
    );
    return texts.map((_, i) => unit(values.slice(i * dimensions, (i + 1) * dimensions)));
  };
  const modelOf = (dimensions: number): EmbeddingModel => ({
    provider: 'local',
    name: `local:${basename(model)}-${dimensions}`,
    dimensions,
    weight: 1,
    limits,
    lanes: 1,
    embed: async (texts, signal) => {
      try {
        return await patient.execute(() => embed(texts, false), signal);
      } catch (error) {
        if (failureOf(error) === 'timeout') await thread?.then((one) => one.close());
        throw error;
      }
    },
    embedQuery: async (text, signal) => (await quick.execute(() => embed([text], true), signal))[0]!,
  });
  return {
    provider: 'local',
    label: basename(model),
    former: false,
    makes: (name) => name.startsWith(`local:${basename(model)}-`),
    open: async () => {
      if (opened) return opened;
      // Under the breaker too: a package that is missing is not looked for on every call.
      const { dimensions } = await patient.execute(running);
      opened ??= modelOf(dimensions);
      return opened;
    },
    peek: () => opened,
    breaker: () => stateOf(breaker),
    close: async () => {
      await thread?.then((one) => one.close()).catch(() => {});
    },
  };
}

function startThread(settings: LocalSettings): Promise<Thread> {
  const worker = new Worker(new URL('./local-worker.ts', import.meta.url), {
    workerData: settings,
    name: 'local-embeddings',
    execArgv: [],
  });
  const ready = Promise.withResolvers<Thread>();
  const waiting: Call[] = [];
  let current: Call | undefined;
  let ended = false;
  const end = (error: Error) => {
    ended = true;
    ready.reject(error);
    for (const call of [current, ...waiting.splice(0)]) call?.reject(error);
    current = undefined;
  };
  const next = () => {
    if (current || ended) return;
    const urgent = waiting.findIndex((call) => call.urgent);
    current = waiting.splice(Math.max(0, urgent), 1)[0];
    if (current) worker.postMessage(current.texts satisfies ToLocal);
  };
  const done = (finish: (call: Call) => void) => {
    const call = current;
    current = undefined;
    if (call) finish(call);
    next();
  };
  const thread = (dimensions: number): Thread => ({
    dimensions,
    call: (texts, urgent) =>
      new Promise((resolve, reject) => {
        if (ended) return reject(new ModelError('unreachable', 'the local embedding model has ended'));
        waiting.push({ texts, urgent, resolve, reject });
        next();
      }),
    ended: () => ended,
    close: async () => {
      await worker.terminate();
    },
  });
  worker.on('message', (message: FromLocal) => {
    if (message.kind === 'ready') ready.resolve(thread(message.dimensions));
    else if (message.kind === 'vectors') done((call) => call.resolve(message.values));
    else if (message.kind === 'refused')
      done((call) => call.reject(new ModelError('refused', message.message)));
    else if (message.reason === 'missing') end(new ModelError('misconfigured', installHint));
    else
      end(
        new ModelError('misconfigured', 'the local embedding model can not be opened; the log says why', {
          cause: new Error(message.message),
        }),
      );
  });
  worker.on('error', (error) =>
    end(new ModelError('unreachable', 'the local embedding model broke down', { cause: error })),
  );
  worker.on('exit', () => end(new ModelError('unreachable', 'the local embedding model has ended')));
  // Loading a model must not keep a process alive that has nothing else to do.
  worker.unref();
  return ready.promise;
}
