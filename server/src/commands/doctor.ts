import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Config, readConfig, withoutEffect } from '#platform/config.ts';
import { inspect } from '#platform/db/migrate.ts';
import { openDatabase } from '#platform/db/open.ts';
import { createLog } from '#platform/log.ts';
import { openMailer } from '#platform/mail.ts';
import { openModels } from '#platform/models/models.ts';
import { openShared } from '#platform/shared-open.ts';

/** Asks one thing; answers what there is. @throws Error that says what is wrong */
type Check = () => Promise<string>;
type Examine = (name: string, check: Check) => Promise<boolean>;

/**
 * Asks all that a server needs whether it is there, one line each, and changes nothing.
 * @returns whether all is well
 */
export async function examine(env: NodeJS.ProcessEnv, say: (line: string) => void): Promise<boolean> {
  let well = true;
  const ask: Examine = async (name, check) => {
    try {
      say(`ok      ${name.padEnd(13)}  ${await check()}`);
      return true;
    } catch (error) {
      const { message, code } = error as NodeJS.ErrnoException;
      say(`FAILED  ${name.padEnd(13)}  ${(message || code || 'no reason given').replace(/\s+/g, ' ')}`);
      well = false;
      return false;
    }
  };
  let config: Config | undefined;
  await ask('configuration', async () => {
    config = readConfig(env);
    return [config.ENVIRONMENT, ...withoutEffect(config)].join('; ');
  });
  if (!config) return false;
  await examineDatabase(config, ask);
  await examineRedis(config, ask);
  await examineModels(config, ask);
  await examineMail(config, ask);
  return well;
}

async function examineDatabase(config: Config, ask: Examine): Promise<void> {
  const embedded = !config.DATABASE_URL;
  if (embedded && !existsSync(join(config.dataDir, 'database'))) {
    await ask('database', async () => `embedded, to be made in ${config.dataDir} by the first start`);
    return;
  }
  let database: Awaited<ReturnType<typeof openDatabase>> | undefined;
  try {
    const open = async () => {
      database = await openDatabase(config, createLog('silent'));
      const parts = inspect(database, { manageRole: !config.DATABASE_APP_URL });
      return { parts, version: await parts.server() };
    };
    let opened: Awaited<ReturnType<typeof open>> | undefined;
    await ask('database', async () => {
      opened = await open();
      return `${embedded ? 'embedded ' : ''}PostgreSQL ${opened.version}`;
    });
    if (!opened) return;
    await ask('extension', opened.parts.extension);
    await ask('role', opened.parts.role);
    await ask('migrations', opened.parts.migrations);
  } finally {
    await database?.close();
  }
}

async function examineRedis({ REDIS_URL }: Config, ask: Examine): Promise<void> {
  const shared = await openShared(REDIS_URL, true, createLog('silent'));
  try {
    await ask('redis', async () => {
      if (!REDIS_URL) return 'none: limits and cache of each process alone';
      // It connects by itself, and refuses to answer until it has.
      for (let left = 30; !(await shared.reachable()); left--) {
        if (left === 0) throw new Error('the server of REDIS_URL does not answer');
        await sleep(100);
      }
      return new URL(REDIS_URL).host;
    });
  } finally {
    await shared.close();
  }
}

async function examineModels(config: Config, ask: Examine): Promise<void> {
  const models = openModels(config);
  try {
    if (models.embeddings.length === 0) await ask('embeddings', async () => 'built in');
    for (const link of models.embeddings)
      await ask('embeddings', async () => {
        await (await link.open()).embedQuery('ready', AbortSignal.timeout(config.EMBEDDING_QUERY_TIMEOUT_MS));
        return link.label;
      });
    const { answers, rerank, speech } = models;
    await ask('answers', async () => {
      if (!answers) return 'built in';
      const prompt = {
        system: 'Answer in one word.',
        messages: [{ role: 'user' as const, content: 'Ready?' }],
      };
      const answer = answers.stream(prompt, AbortSignal.timeout(config.LLM_TIMEOUT_MS));
      // Its first piece will do. The rest is given up, for which the command would wait otherwise.
      for await (const _piece of answer) break;
      return answers.name;
    });
    await ask('reranker', async () => {
      if (!rerank) return 'none';
      await rerank.rerank('ready', ['ready', 'waiting'], AbortSignal.timeout(config.RERANK_TIMEOUT_MS));
      return rerank.name;
    });
    await ask('speech', async () => (speech ? `${config.TTS_PROVIDER}, not asked` : 'none'));
  } finally {
    await models.close();
  }
}

async function examineMail(config: Config, ask: Examine): Promise<void> {
  const mailer = await openMailer(config, createLog('silent'));
  try {
    await ask('mail', async () => (mailer ? mailer.check() : 'none: set SMTP_URL to send any'));
  } finally {
    mailer?.close();
  }
}
