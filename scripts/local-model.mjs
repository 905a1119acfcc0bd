// `npm run test:local-model`: installs transformers.js, which is 474 MB and so no dependency, into node_modules unless it
// is there, and runs the tests of the local embedding model with it.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureInstalled, ROOT } from './install.mjs';

const wanted = '@huggingface/transformers@4.3.1';

const node = ensureInstalled();
if (!existsSync(join(ROOT, 'node_modules', '@huggingface', 'transformers'))) {
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
  const { status } = spawnSync(
    npm,
    ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error', wanted],
    {
      cwd: ROOT,
      stdio: ['ignore', 'inherit', 'inherit'],
      // Not the libraries for graphics cards, which it would fetch from elsewhere.
      env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' },
    },
  );
  if (status !== 0) {
    console.error(`${wanted} could not be installed`);
    process.exit(1);
  }
}
const folder = mkdtempSync(join(tmpdir(), 'manushya-local-model-'));
const countsFile = join(folder, 'counts.json');
const reporters = [
  'spec',
  'stdout',
  pathToFileURL(join(ROOT, 'scripts', 'test-counts.mjs')).href,
  countsFile,
];
const flags = reporters.map((value, i) => `--test-reporter${i % 2 === 0 ? '' : '-destination'}=${value}`);
const { status } = spawnSync(
  node,
  [
    '--test',
    '--test-timeout=180000',
    '--test-force-exit',
    ...flags,
    join(ROOT, 'server/test/local-model.ts'),
  ],
  {
    cwd: ROOT,
    stdio: 'inherit',
    env: { ...process.env, TEST_ENGINE: 'embedded', DATABASE_URL: '', REDIS_URL: '' },
  },
);
const { passed, failed } = existsSync(countsFile)
  ? JSON.parse(readFileSync(countsFile, 'utf8'))
  : { passed: 0, failed: 1 };
rmSync(folder, { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(status === 0 && passed > 0 ? 0 : 1);
