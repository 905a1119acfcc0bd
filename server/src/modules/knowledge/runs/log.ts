import type { Batch } from './event-store.ts';
import { eventFramer, type RunEvent, type RunNames } from './events.ts';

/**
 * How far what was sent may be ahead of what is stored. Whoever ends a run from outside numbers its last events beyond
 * this, so that no number ever stands for two events. Must not grow smaller or larger while older processes run.
 */
export const aheadMost = 1_000;
/** Room for the events that end a run. */
const unstoredMost = aheadMost - 20;
const unstoredBytesMost = 256 * 1024;
/** Stored events that are kept at hand for readers a little behind; those further behind read the rows. */
const atHandBytes = 64 * 1024;

interface Logged {
  seq: number;
  /** As it is stored. */
  text: string;
  /** As it is sent. */
  frame: string;
}

/** What a reader gets of a log: frames up to number `last`, or that it has to read the rows. */
export type LogPage = { text: string; last: number; done: boolean } | 'rows';

/**
 * The events of a run in the process that works on it: numbered, sent at once to who reads here, and stored a little
 * later in batches. Bounded whatever readers do: they take from it, and it never waits for them.
 */
export class RunLog {
  readonly names: RunNames;
  /** Set where events are stored: called when there is something new to store. */
  onUnstored: () => void = () => {};
  private readonly frameOf: ReturnType<typeof eventFramer>;
  private readonly events: Logged[] = [];
  private bytes = 0;
  private unstoredBytes = 0;
  private last = 0;
  private stored = 0;
  /** Handed out to be stored. It stays the same until it is: whether a lost database took it is not known. */
  private batch: Batch | undefined;
  private held = false;
  private gone = false;
  private readonly readers = new Set<() => void>();
  private writers: (() => void)[] = [];

  constructor(names: RunNames) {
    this.names = names;
    this.frameOf = eventFramer(names);
  }

  /** Numbers an event and hands it to the readers. Resolves when there is room for another. Late ones are dropped. */
  append(event: RunEvent): Promise<void> | void {
    if (this.held || this.gone) return;
    this.push(event);
    this.onUnstored();
    this.wake();
    if (this.last - this.stored < unstoredMost && this.unstoredBytes < unstoredBytesMost) return;
    return new Promise((resolve) => this.writers.push(resolve));
  }

  private push({ type, data }: RunEvent): void {
    this.last += 1;
    const json = JSON.stringify(data);
    const text = `["${type}",${json}]`;
    this.events.push({ seq: this.last, text, frame: this.frameOf(this.last, type, json) });
    this.bytes += text.length;
    this.unstoredBytes += text.length;
  }

  get hasUnstored(): boolean {
    return !this.held && !this.gone && this.last > this.stored;
  }

  /** What is to be stored next, until `isStored` is told of it. */
  nextBatch(): Batch | undefined {
    return this.hasUnstored ? this.currentBatch() : undefined;
  }

  private currentBatch(): Batch | undefined {
    if (!this.batch && this.last > this.stored) {
      this.batch = batchOf(this.events.filter(({ seq }) => seq > this.stored));
    }
    return this.batch;
  }

  isStored({ last_seq }: Batch): void {
    this.batch = undefined;
    this.stored = Math.max(this.stored, last_seq);
    this.unstoredBytes = this.events.reduce(
      (sum, { seq, text }) => sum + (seq > this.stored ? text.length : 0),
      0,
    );
    let drop = 0;
    while (this.bytes > atHandBytes && this.events[drop] && this.events[drop]!.seq <= this.stored)
      this.bytes -= this.events[drop++]!.text.length;
    if (drop > 0) this.events.splice(0, drop);
    this.makeRoom();
  }

  /** From here on nothing is stored but by `closing`; no batch may be on its way. */
  hold(): void {
    this.held = true;
  }

  /** What is not stored yet and `endings` after it, to be stored in a transaction of the caller's, and then published. */
  closing(endings: RunEvent[]): { batches: Batch[]; last_seq: number } {
    const first = this.currentBatch();
    const after = first?.last_seq ?? this.stored;
    const rest = this.events.filter(({ seq }) => seq > after).map(({ text }) => text);
    const texts = [...rest, ...endings.map(({ type, data }) => JSON.stringify([type, data]))];
    const last_seq = this.last + endings.length;
    const second = texts.length > 0 ? [{ last_seq, events: `[${texts.join(',')}]` }] : [];
    return { batches: [...(first ? [first] : []), ...second], last_seq };
  }

  /** Hands the readers events that are stored, or that can not be stored any more. */
  publish(endings: RunEvent[]): void {
    for (const ending of endings) this.push(ending);
    this.isStored({ last_seq: this.last, events: '' });
    this.held = false;
    this.wake();
  }

  /** Somebody else ended the run: how it ended stands in the rows. */
  leaveToRows(): void {
    this.gone = true;
    this.makeRoom();
    this.wake();
  }

  /** Frames of events after number `after`, about `bytes` of them; none when there are no more yet. */
  read(after: number, bytes: number): LogPage {
    if (this.gone) return 'rows';
    if (after >= this.last) return { text: '', last: after, done: false };
    const first = this.events[0]?.seq ?? this.last + 1;
    if (after + 1 < first) return 'rows';
    let text = '';
    let at = after + 1 - first;
    for (; at < this.events.length && text.length < bytes; at++) text += this.events[at]!.frame;
    const { seq, text: json } = this.events[at - 1]!;
    return { text, last: seq, done: json.startsWith('["done"') };
  }

  /** Calls `more` at every change; answers how to stop that. */
  listen(more: () => void): () => void {
    this.readers.add(more);
    return () => this.readers.delete(more);
  }

  private wake(): void {
    for (const more of this.readers) more();
  }

  /** Lets go who waits for room: the run is being stopped. */
  makeRoom(): void {
    const writers = this.writers;
    this.writers = [];
    for (const resolve of writers) resolve();
  }
}

const batchOf = (events: Logged[]): Batch => ({
  last_seq: events.at(-1)!.seq,
  events: `[${events.map(({ text }) => text).join(',')}]`,
});
