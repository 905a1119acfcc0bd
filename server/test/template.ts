// Makes a data directory whose embedded database has the schema and nothing else: node server/test/template.ts <directory>
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { readConfig } from '#platform/config.ts';
import { openJobs } from '#platform/jobs/worker.ts';
import { createLog } from '#platform/log.ts';
import { jobsOf, openApp } from '../src/app.ts';

const config = readConfig({ DATA_DIR: process.argv[2]!, ENVIRONMENT: 'development' });
const { app, close } = await openApp(config, createLog('warn'));
const queue = await openJobs(app, jobsOf(config), { supervise: false });
await queue.stop(0);
await close();
// Nobody opens the two databases that others are made of, and copying them takes longer than all the rest.
for (const oid of ['1', '4'])
  rmSync(join(process.argv[2]!, 'database', 'data', 'base', oid), { recursive: true });
