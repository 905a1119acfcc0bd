import type { Ctx } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import type { PageFrom } from '#platform/http/pages.ts';
import { isUuid } from '#platform/ids.ts';
import { takingTurns } from '#platform/turns.ts';
import { isTotal, sqlOf, undecidedIn, type View } from '../../access/policy/service.ts';
import { listSeen, ofIds, orElse } from './seen-store.ts';
import { memoryColumns, type SearchFilter } from './store.ts';
import { targetOf } from './target.ts';

/** Memories decided at once. */
const batch = 5_000;

/**
 * The memories the caller may see where policies look at them, as a condition; true when that is all there are. A search
 * must know before it ranks: filtering its results would leave too few, or none. What rules ask the database can mostly
 * answer; the memories of which it can not are decided beforehand.
 */
export async function memoriesSeen(ctx: Ctx, view: View, filter: SearchFilter): Promise<Statement | boolean> {
  const condition = view.letThrough(memoryColumns);
  if (typeof condition === 'boolean') return condition;
  if (isTotal(condition)) return sqlOf(condition);
  const undecided = condition === null ? filter : { ...filter, seen: undecidedIn(condition) };
  const more = await decideEach(ctx, view, undecided);
  if (condition === null) return more ?? false;
  return more ? orElse(sqlOf(condition), more) : sqlOf(condition);
}

/** Undefined when none may be seen. */
async function decideEach(ctx: Ctx, view: View, filter: SearchFilter): Promise<Statement | undefined> {
  const now = new Date();
  const ids: string[] = [];
  const others = takingTurns();
  for (let after: string | undefined; ; ) {
    const memories = await listSeen(ctx.db, filter, after, batch, now);
    for (const memory of memories) {
      const turn = others();
      if (turn) await turn;
      if (view.admits(targetOf(memory))) ids.push(memory.id);
    }
    if (memories.length < batch) return ids.length > 0 ? ofIds(ids) : undefined;
    after = memories.at(-1)!.id;
  }
}

/** The same list of one identity's alone, where one is asked for. */
export const ofIdentity =
  <Row>(identityId: string | undefined, list: (from: PageFrom) => Promise<Row[]>) =>
  async (from: PageFrom): Promise<Row[]> => {
    if (identityId === undefined) return list(from);
    const owner = identityId.toLowerCase();
    return isUuid(owner) && (from.owner ?? owner) === owner ? list({ ...from, owner }) : [];
  };
