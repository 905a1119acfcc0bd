import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';

// The thread of the local model: loads it through transformers.js and embeds what it is sent, one call at a time.

export interface LocalSettings {
  /** A directory, or a name on the hub. */
  model: string;
  cacheDir: string;
}

/** Texts to embed; the next come only when these are answered. */
export type ToLocal = string[];

export type FromLocal =
  | { kind: 'ready'; dimensions: number }
  | { kind: 'failed'; reason: 'missing' | 'unusable'; message: string }
  | { kind: 'vectors'; values: Float32Array }
  | { kind: 'refused'; message: string };

/** What is used of the package; it is not installed by default, so its own types can not be named. */
interface Transformers {
  env: { allowRemoteModels: boolean; cacheDir: string | null };
  pipeline(task: 'feature-extraction', model: string, options: object): Promise<Extractor>;
}

type Extractor = (
  texts: string[],
  options: { pooling: 'mean'; normalize: boolean },
) => Promise<{ dims: number[]; data: Float32Array }>;

const settings = workerData as LocalSettings;
const port = parentPort!;
const say = (message: FromLocal, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);
const wordsOf = (error: unknown) => (error instanceof Error ? error.message : String(error)).slice(0, 500);

async function open(): Promise<Extractor | undefined> {
  let transformers: Transformers;
  try {
    // Not a literal: the package is optional, and a compiler that does not find it would complain.
    const name = '@huggingface/transformers';
    transformers = (await import(name)) as Transformers;
  } catch (error) {
    say({ kind: 'failed', reason: 'missing', message: wordsOf(error) });
    return undefined;
  }
  try {
    const directory = resolve(settings.model);
    const isLocal = existsSync(directory);
    transformers.env.allowRemoteModels = !isLocal;
    transformers.env.cacheDir = settings.cacheDir;
    return await transformers.pipeline('feature-extraction', isLocal ? directory : settings.model, {
      dtype: 'fp32',
      device: 'cpu',
    });
  } catch (error) {
    say({ kind: 'failed', reason: 'unusable', message: wordsOf(error) });
    return undefined;
  }
}

async function main(): Promise<void> {
  const extract = await open();
  if (!extract) return port.close();
  const embed = (texts: string[]) => extract(texts, { pooling: 'mean', normalize: true });
  const { dims } = await embed(['a']);
  port.on('message', async (texts: ToLocal) => {
    try {
      const { data } = await embed(texts);
      const values = Float32Array.from(data);
      say({ kind: 'vectors', values }, [values.buffer]);
    } catch (error) {
      say({ kind: 'refused', message: wordsOf(error) });
    }
  });
  say({ kind: 'ready', dimensions: dims.at(-1)! });
}

main().catch((error) => {
  say({ kind: 'failed', reason: 'unusable', message: wordsOf(error) });
  port.close();
});
