import { ANY_ATTRIBUTE } from './analyse.ts';

/** Names below an attribute, or all of them. */
type Names = ReadonlySet<string> | 'all';

/**
 * What of a question is kept when its decision is recorded, beyond who asks for what on which kind of thing. Only what
 * some policy of the tenant reads: the rest multiplies questions, and may be somebody's secret.
 */
export interface Kept {
  id: boolean;
  owner: boolean;
  path: boolean;
  labels: Names;
  metadata: Names;
}

/** @param reads dotted names that rules read */
export function keptOf(reads: Iterable<string>): Kept {
  const kept: Kept = { id: false, owner: false, path: false, labels: new Set(), metadata: new Set() };
  for (const name of reads) {
    const [first, second, third] = name.split('.') as [string, string?, string?];
    if (name === ANY_ATTRIBUTE || name === 'target')
      Object.assign(kept, { id: true, owner: true, labels: 'all', metadata: 'all' });
    if (name === ANY_ATTRIBUTE || name === 'request' || name === 'request.path') kept.path = true;
    if (first === 'target' && second === 'id') kept.id = true;
    if (first === 'target' && second === 'owner') kept.owner = true;
    if (first === 'target' && second === 'labels') kept.labels = withName(kept.labels, third);
    if (first === 'target' && second === 'metadata') kept.metadata = withName(kept.metadata, third);
    if (first === 'memory_metadata') kept.metadata = withName(kept.metadata, second);
  }
  return kept;
}

const withName = (names: Names, name: string | undefined): Names =>
  names === 'all' || name === undefined ? 'all' : new Set([...names, name]);
