import { parentPort, workerData } from 'node:worker_threads';
import { createBackend } from './backend.ts';
import { startEngine } from './engine.ts';
import { type FromWorker, readFrames, type ToWorker, transferOf, type WorkerSettings } from './messages.ts';
import { createOutbox } from './outbox.ts';

/** The entry of the worker thread: PGlite and the scheduler of its one backend. */
async function main(): Promise<void> {
  const settings = workerData as WorkerSettings;
  const port = parentPort!;
  const engine = await startEngine(settings.data);
  const outbox = createOutbox((batch) => port.postMessage(batch, transferOf(batch)));
  const backend = createBackend(engine, outbox, settings.ownerWaitMs);

  async function control(message: ToWorker): Promise<void> {
    if (message.kind === 'open') return backend.open(message.connection, message.role);
    if (message.kind === 'end') {
      backend.end(message.connection, message.statements);
      return backend.drain();
    }
    await engine.close();
    port.postMessage({ kind: 'closed' } satisfies FromWorker);
  }

  port.on('message', (message: Uint8Array | ToWorker) => {
    try {
      if (message instanceof Uint8Array) {
        readFrames(message, backend.enqueue);
        backend.drain();
      } else {
        control(message).catch(fail);
      }
    } catch (error) {
      outbox.end();
      outbox.flush();
      fail(error);
    }
  });

  port.postMessage({ kind: 'ready', parameters: engine.parameters } satisfies FromWorker);
}

/** The backend cannot be trusted after an error that is not an SQL error: the thread ends, and with it all connections. */
function fail(error: unknown): void {
  // What the backend throws at its end is not always an Error.
  const message = (error as { message?: string }).message ?? String(error);
  parentPort!.postMessage({ kind: 'failed', message } satisfies FromWorker);
  parentPort!.close();
}

main().catch(fail);
