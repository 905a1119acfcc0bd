import { setImmediate as letOthersIn } from 'node:timers/promises';
import type { Ctx } from '#platform/context.ts';
import type { Statement } from '#platform/db/sql.ts';
import { isTotal, sqlOf, undecidedIn, type View } from '../../access/policy/service.ts';
import { type KindOf, listKinds, listSeen, listTargets, ofIds, ofKinds, orElse } from './seen-store.ts';
import { memoryColumns, type SearchFilter } from './store.ts';
import { targetOf } from './target.ts';

/** Memories decided at once. */
const batch = 5_000;

/**
 * The memories the caller may see where policies look at them, as a condition; true when that is all there are. A search
 * must know before it ranks: filtering its results would leave too few, or none. What rules ask the database can mostly
 * answer; the memories of which it can not are decided beforehand, those that no policy can tell apart once.
 */
export async function memoriesSeen(ctx: Ctx, view: View, filter: SearchFilter): Promise<Statement | boolean> {
  const condition = view.letThrough(memoryColumns);
  if (typeof condition === 'boolean') return condition;
  if (isTotal(condition)) return sqlOf(condition);
  const undecided = condition === null ? filter : { ...filter, seen: undecidedIn(condition) };
  const more = await (view.looksAt.id ? decideEach : decideKinds)(ctx, view, undecided);
  if (condition === null) return more ?? false;
  return more ? orElse(sqlOf(condition), more) : sqlOf(condition);
}

/** Undefined when none may be seen. */
async function decideEach(ctx: Ctx, view: View, filter: SearchFilter): Promise<Statement | undefined> {
  const now = new Date();
  const ids: string[] = [];
  for (let after: string | undefined; ; await letOthersIn()) {
    const memories = await listSeen(ctx.db, filter, after, batch, now);
    for (const memory of memories) if (view.admits(targetOf(memory))) ids.push(memory.id);
    if (memories.length < batch) return ids.length > 0 ? ofIds(ids) : undefined;
    after = memories.at(-1)!.id;
  }
}

async function decideKinds(ctx: Ctx, view: View, filter: SearchFilter): Promise<Statement | undefined> {
  const { identity_id, delegation } = ctx.actor;
  const parties = [identity_id, ...(delegation?.agents.map((agent) => agent.identity_id) ?? [])];
  const by: KindOf = { ...view.looksAt, parties: parties.filter((id) => id !== undefined) };
  const kinds = await listKinds(ctx.db, by, filter, new Date());
  const hashes: string[] = [];
  for (let i = 0; i < kinds.length; i += batch) {
    if (i > 0) await letOthersIn();
    const hashOf = new Map(kinds.slice(i, i + batch).map(({ id, hash }) => [id, hash]));
    for (const memory of await listTargets(ctx.db, [...hashOf.keys()]))
      if (view.admits(targetOf(memory))) hashes.push(hashOf.get(memory.id)!);
  }
  return hashes.length > 0 ? ofKinds(by, hashes) : undefined;
}
