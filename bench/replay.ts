/** The statements of a search alone: recorded from the program's own search, and sent again without all the rest. */

import { openApp } from '../server/src/app.ts';
import { searchMemories } from '../server/src/modules/knowledge/memory/search.ts';
import { readConfig } from '../server/src/platform/config.ts';
import { type Ctx, systemCtx } from '../server/src/platform/context.ts';
import type { Db } from '../server/src/platform/db/database.ts';
import type { Statement } from '../server/src/platform/db/sql.ts';
import { uuidv7 } from '../server/src/platform/ids.ts';
import { createLog } from '../server/src/platform/log.ts';

type Batch = readonly Statement<unknown>[];

export async function openReplay(env: Record<string, string>) {
  const { app, close } = await openApp(readConfig(env), createLog('error'));
  const record = async (
    tenant: string,
    query: string,
    mode: 'hybrid' | 'vector',
  ): Promise<{ db: Db; batches: Batch[] }> => {
    const ctx = systemCtx(app, tenant, uuidv7());
    await app.features.prepare(ctx);
    const batches: Batch[] = [];
    const note = <S extends Batch>(statements: S): S => {
      batches.push(statements);
      return statements;
    };
    const db: Db = {
      ...ctx.db,
      batch: ((statements: Batch) => ctx.db.batch(note(statements))) as Db['batch'],
      rows: (statement) => ctx.db.rows(note([statement])[0]!) as never,
      one: (statement) => ctx.db.one(note([statement])[0]!) as never,
    };
    await searchMemories({ ...ctx, db } as Ctx, { query, mode });
    return { db: ctx.db, batches };
  };
  return {
    /** Milliseconds that the statements of each search take, one round trip after another, and one search after another. */
    time: async (tenant: string, queries: string[], mode: 'hybrid' | 'vector'): Promise<number[]> => {
      const recorded = [];
      for (const query of queries) recorded.push(await record(tenant, query, mode));
      const times: number[] = [];
      for (const { db, batches } of recorded) {
        const from = performance.now();
        for (const batch of batches) await db.batch(batch);
        times.push(performance.now() - from);
      }
      return times;
    },
    close,
  };
}

export type Replay = Awaited<ReturnType<typeof openReplay>>;
