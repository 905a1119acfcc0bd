/** What a memory may be. More than one state when an answer was lost on the way. */
export type MemoryState =
  | { is: 'absent' }
  | { is: 'live'; text: string; type: string; version: number }
  | { is: 'soft' | 'hard' };

export interface MemoryEntry {
  /** Unique, and stored in its metadata: finds the row when no answer told its id. */
  mark: string;
  tenant: string;
  id: string | undefined;
  may: MemoryState[];
}

export interface DocumentEntry {
  id: string;
  tenant: string;
  /** How many times its ingestion was acknowledged. */
  acknowledged: number;
  /** The bytes it may have, by their hash; undefined: it may not be there. */
  may: (string | undefined)[];
}

/** A corpus of its own, made to be deleted. */
export interface CorpusEntry {
  id: string;
  tenant: string;
  /** What became of its deletion: `gone` when that was acknowledged. */
  may: ('there' | 'gone')[];
}

export interface IdentityEntry {
  external_id: string;
  tenant: string;
  acknowledged: boolean;
}

/** A request that carries an Idempotency-Key, and what was answered. */
export interface KeyEntry {
  key: string;
  tenant: string;
  method: string;
  path: string;
  body: unknown;
  /** Undefined until a 2xx arrived. */
  answer: { status: number; body: any } | undefined;
}

/** Everything that was asked for, as the clients know it. */
export interface Ledger {
  memories: MemoryEntry[];
  /** What one request asked for, until it is answered: it takes effect for all of them or for none. */
  together: Set<MemoryEntry[]>;
  documents: DocumentEntry[];
  corpora: CorpusEntry[];
  identities: IdentityEntry[];
  keys: KeyEntry[];
  counts: Record<string, number>;
  /** What no client should ever see. */
  problems: string[];
}

export const newLedger = (): Ledger => ({
  memories: [],
  together: new Set(),
  documents: [],
  corpora: [],
  identities: [],
  keys: [],
  counts: {},
  problems: [],
});

export const count = (ledger: Ledger, name: string, by = 1): void => {
  ledger.counts[name] = (ledger.counts[name] ?? 0) + by;
};
