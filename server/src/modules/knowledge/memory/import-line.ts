import { checkOf } from '#platform/check.ts';
import type { Ctx } from '#platform/context.ts';
import { ApiError, type FieldProblem, invalid } from '#platform/errors.ts';
import { parseJson } from '#platform/http/json.ts';
import { firstProblem } from '#platform/http/validate.ts';
import { isUuid } from '#platform/ids.ts';
import { storedTimestamp } from '#platform/timestamp.ts';
import { findIdentity } from '../../access/identity/service.ts';
import type { View } from '../../access/policy/service.ts';
import { type ImportOptions, MemoryLine } from './import-schema.ts';
import { tooLongMark } from './import-upload.ts';
import { checkText, metadataOf, rowAsOf } from './rows.ts';
import type { AlwaysSensitive } from './sensitive-types.ts';
import { targetOf } from './target.ts';
import type { MemoryRow } from './write-store.ts';

/** A line that can be stored, as far as it alone tells. Its text is still in the clear. */
export interface ParsedLine {
  line: number;
  row: MemoryRow;
  /** What it is called where it came from. */
  source_id: string | undefined;
  versions: NonNullable<MemoryLine['versions']>;
  /** Whose it is, and whose it was where it came from: what was erased of either is not learned again. */
  owners: string[];
  /** Whether the line itself says if it is sensitive. */
  saysSensitive: boolean;
}

export interface LineProblem {
  line: number;
  code: string;
  message: string;
}

/** What all lines of an import are read with. */
export interface Reading {
  options: Pick<ImportOptions, 'owner' | 'preserve_ids'>;
  create: View;
  always: AlwaysSensitive;
  /** Whether identities that lines name are those of the tenant, as far as it was asked. */
  owners: Map<string, boolean>;
}

/** Identities remembered while a file is read. */
const mostOwners = 10_000;

const checkLine = checkOf(MemoryLine);

/** @returns undefined for a line with nothing in it */
export async function readLine(
  ctx: Ctx,
  bytes: Buffer,
  line: number,
  reading: Reading,
): Promise<ParsedLine | LineProblem | undefined> {
  if (isBlank(bytes)) return undefined;
  if (bytes.toString('latin1', 0, tooLongMark.length) === tooLongMark)
    return {
      line,
      code: 'LINE_TOO_LONG',
      message: `The line is longer than ${ctx.app.config.IMPORT_LINE_LIMIT_BYTES} bytes.`,
    };
  try {
    const value = parseJson(bytes);
    if (!checkLine.Check(value)) {
      const first = firstProblem(MemoryLine, checkLine.Errors(value));
      throw invalid([{ path: first?.path || '/', message: first?.message ?? 'is not a memory' }]);
    }
    return { line, ...(await parsed(ctx, value, reading)) };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const [first] = (error.details?.errors as FieldProblem[] | undefined) ?? [];
    if (first) return { line, code: error.code, message: `${first.path} ${first.message}`.slice(0, 300) };
    const isMalformed = error.code === 'MALFORMED_JSON';
    return {
      line,
      code: error.code,
      message: isMalformed ? 'The line is not JSON in UTF-8.' : error.message,
    };
  }
}

/** Spaces, tabs and carriage returns only; of a file's first line also the byte order mark. */
function isBlank(bytes: Buffer): boolean {
  const from = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  for (let i = from; i < bytes.length; i++)
    if (bytes[i] !== 32 && bytes[i] !== 9 && bytes[i] !== 13) return false;
  return true;
}

async function parsed(ctx: Ctx, value: MemoryLine, reading: Reading): Promise<Omit<ParsedLine, 'line'>> {
  const { options, create, always } = reading;
  const now = new Date();
  const created = timeOf(value.created_at, '/created_at', now) ?? now.toISOString();
  const updated = timeOf(value.updated_at, '/updated_at', now) ?? created;
  const versions = value.versions ?? [];
  const version = versions.length > 0 ? (value.version ?? versions.at(-1)!.version + 1) : 1;
  checkVersions(ctx, versions, version);
  const { text, type, session_id, role, occurred_at } = value;
  // An export says of each memory what it was; what was in the clear is not asked to stay so.
  const sensitive = value.sensitive === false && always.has(type) ? undefined : value.sensitive;
  const input = {
    text,
    type,
    metadata: metadataOf(value) ?? {},
    ...(session_id == null ? {} : { session_id }),
    ...(role == null ? {} : { role }),
    ...(occurred_at == null ? {} : { occurred_at }),
    ...(value.ttl_days == null ? {} : { ttl_days: value.ttl_days }),
    ...(value.expires_at == null ? {} : { expires_at: value.expires_at }),
    ...(sensitive === undefined ? {} : { sensitive }),
  };
  const row: MemoryRow = {
    ...rowAsOf(ctx, always, input, new Date(created)),
    identity_id: await ownerOf(ctx, value, reading),
    version,
    updated_at: updated < created ? created : updated,
  };
  if (row.expires_at !== null && row.expires_at <= now.toISOString())
    throw new ApiError(409, 'MEMORY_EXPIRED', 'The memory is past its time.');
  if (options.preserve_ids) {
    if (value.id === undefined || !isUuid(value.id))
      throw invalid([{ path: '/id', message: 'must be a UUID where ids are preserved' }]);
    row.id = value.id.toLowerCase();
    row.derived_from = value.derived_from ?? null;
  }
  const isOthers = row.identity_id !== ctx.actor.identity_id;
  const isSure = create.rows === 'all' || (create.rows === 'own' && !isOthers);
  // What it was is stored with it, and shown for its time.
  const states = [row, ...versions.map(({ type, metadata }) => ({ ...row, type, metadata }))];
  if (!isSure && !states.every((state) => create.sees(targetOf(state))))
    throw new ApiError(403, 'POLICY_DENIED', 'A policy of your tenant does not allow this.');
  const named = value.identity_id?.toLowerCase();
  const owners =
    named && named !== row.identity_id && isUuid(named) ? [row.identity_id, named] : [row.identity_id];
  return { row, source_id: value.id, versions, owners, saysSensitive: sensitive !== undefined };
}

function timeOf(given: string | undefined, path: string, now: Date): string | undefined {
  if (given === undefined) return undefined;
  const time = storedTimestamp(given, path);
  if (Date.parse(time) > now.getTime() + 60_000)
    throw invalid([{ path, message: 'must not be in the future' }]);
  return time;
}

/** Versions count upwards, each before the memory's own, and none begins before the one before it ended. */
function checkVersions(ctx: Ctx, versions: ParsedLine['versions'], current: number): void {
  let last = { version: 0, until: '' };
  for (const [i, { version, text, valid_from, valid_until }] of versions.entries()) {
    checkText(ctx, text);
    const from = storedTimestamp(valid_from, `/versions/${i}/valid_from`);
    const until = storedTimestamp(valid_until, `/versions/${i}/valid_until`);
    if (version <= last.version || version >= current || from < last.until || until < from)
      throw invalid([{ path: `/versions/${i}`, message: 'is out of order' }]);
    last = { version, until };
  }
}

async function ownerOf(ctx: Ctx, { identity_id }: MemoryLine, { options, owners }: Reading): Promise<string> {
  const self = ctx.actor.identity_id!;
  if (options.owner !== 'keep' || identity_id === undefined || identity_id === self) return self;
  const known =
    owners.get(identity_id) ??
    (isUuid(identity_id) && (await findIdentity(ctx.db, identity_id)) !== undefined);
  if (owners.size >= mostOwners) owners.clear();
  owners.set(identity_id, known);
  if (!known) throw invalid([{ path: '/identity_id', message: 'is not an identity of your tenant' }]);
  return identity_id.toLowerCase();
}
