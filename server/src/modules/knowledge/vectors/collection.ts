import type { Db } from '#platform/db/database.ts';
import type { Statement } from '#platform/db/sql.ts';

/**
 * A kind of texts with vectors: memories, or chunks. Names of tables and columns are constants of the source; in
 * statements the table of vectors is `v`.
 */
export interface VectorCollection {
  name: string;
  /** The table of vectors, with its alias v: `memory_vectors v`. */
  vectors: Statement;
  /** Its column that names the text: `v.memory_id`. */
  key: Statement;
  /** The texts, with their alias, and their tenant and id: `memories m`, `m.tenant_id`, `m.id`. */
  rows: Statement;
  rowTenant: Statement;
  rowId: Statement;
  /** Their columns of term weights. */
  rowWords: Statement;
  rowTrigrams: Statement;
  /**
   * The queue of texts that have no vector yet and can be found by their words all the same, with its tenant and what names the
   * text: `memory_queue q`. Where there is one, the scope has all texts of the collection, and each newer one has a greater id.
   */
  unembedded: { queue: Statement; tenant: Statement; key: Statement } | undefined;
  /** Among its vectors, those of one scope; undefined for a scope of another collection. */
  scope(name: string): VectorScope | undefined;
  /** By scope: how many texts (or documents) have no vectors yet. */
  waiting(db: Db): Promise<Map<string, number>>;
  /** The texts of these ids as they are now, with what tells whether they were changed since. */
  readTexts(db: Db, ids: string[]): Promise<EmbeddedText[]>;
  /** Which of these are still as they were read; they stay so until the transaction ends. */
  lockTexts(tx: Db, scope: VectorScope, texts: EmbeddedText[]): Promise<Set<string>>;
  /** Stores vectors, which come into the tail. */
  insert(tenant: string, scope: VectorScope, vectors: NewVectors): Statement[];
}

export interface EmbeddedText {
  id: string;
  text: string;
  version: number;
}

export interface NewVectors {
  model: string;
  ids: string[];
  /** Array of vectors in binary form. */
  vectors: Buffer;
  /** For each: the better model that does not take its text. */
  refusedBy: (string | null)[];
}

/** One searchable whole of a collection: a tenant's memories, or a corpus. */
export interface VectorScope {
  collection: VectorCollection;
  /** As the statistics of its words are kept by: `memory`, or `corpus:` and an id. */
  name: string;
  /** Keeps to the scope among the vectors v; empty where the collection is the scope. */
  within: Statement;
}

/** What a search wants to see of the texts it finds. */
export interface VectorView {
  /** Columns of the answer. */
  columns: Statement;
  /** More tables that those need. */
  joins: Statement;
  /** Which texts may be found, beginning with `and`. */
  visible: Statement;
  /** Whether that leaves out more than what is deleted or expired. */
  narrow: boolean;
}
