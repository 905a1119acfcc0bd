/** The statements of a search alone: recorded from the program's own search, and sent again without all the rest. */

import { openApp } from '../../server/src/app.ts';
import { searchMemories } from '../../server/src/modules/knowledge/memory/search.ts';
import { readConfig } from '../../server/src/platform/config.ts';
import { type Ctx, systemCtx } from '../../server/src/platform/context.ts';
import type { Db } from '../../server/src/platform/db/database.ts';
import type { Statement } from '../../server/src/platform/db/sql.ts';
import { uuidv7 } from '../../server/src/platform/ids.ts';
import { createLog } from '../../server/src/platform/log.ts';

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
    const search = () => searchMemories({ ...ctx, db } as Ctx, { query, mode });
    // What a server keeps for a moment (counts of terms, segments, the query's vector) it would have; so has this one.
    await search();
    batches.length = 0;
    await search();
    return { db: ctx.db, batches: [...batches] };
  };
  return {
    /** Milliseconds that the statements of a search take, one round trip after another. */
    time: async (tenant: string, query: string, mode: 'hybrid' | 'vector'): Promise<number> => {
      const { db, batches } = await record(tenant, query, mode);
      const from = performance.now();
      for (const batch of batches) await db.batch(batch);
      return performance.now() - from;
    },
    close,
  };
}

export type Replay = Awaited<ReturnType<typeof openReplay>>;
