import { badRequest, conflict } from '#platform/errors.ts';

/** The version named by an If-Match header: `3` or `"3"`; undefined for none, and for `*`. */
export function versionOf(ifMatch: string | undefined): number | undefined {
  if (ifMatch === undefined || ifMatch.trim() === '*') return undefined;
  const version = /^\s*(?:W\/)?("?)(\d{1,10})\1\s*$/.exec(ifMatch)?.[2];
  if (version === undefined)
    throw badRequest('BAD_REQUEST', 'If-Match takes the version the memory must have, as "3".');
  return Number(version);
}

/** @throws ApiError 409 VERSION_CONFLICT for a memory that is not in the version the caller has read */
export function requireVersion({ version }: { version: number }, expected: number | undefined): void {
  if (expected === undefined || expected === version) return;
  throw conflict('VERSION_CONFLICT', 'The memory was changed meanwhile. Read it and decide again.', {
    version,
  });
}
