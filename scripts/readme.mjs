// Runs the commands of the README's tour as a newcomer pastes them, on a server of their own, and compares what they
// print with what the README says. `…` in the README stands for anything.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const file = process.argv[2] ?? join(root, 'README.md');

/** Each `bash` block with the block that follows it: what to run, and what it prints. */
function stepsOf(markdown) {
  const blocks = [...markdown.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language, text]) => ({
    language,
    text,
  }));
  return blocks.flatMap(({ language, text }, i) => {
    if (language !== 'bash') return [];
    const next = blocks[i + 1];
    return [
      { run: text, prints: next && ['json', 'text'].includes(next.language) ? next.text.trim() : undefined },
    ];
  });
}

const patternOf = (expected) =>
  new RegExp(
    `^${expected
      .split('…')
      .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
      .join('[\\s\\S]*?')}$`,
  );

const freePort = () =>
  new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });

const directory = mkdtempSync(join(tmpdir(), 'manushya-readme-'));
const port = await freePort();
const began = Date.now();
const server = spawn(process.execPath, [join(root, 'scripts/start.mjs')], {
  cwd: root,
  env: { ...process.env, DATA_DIR: directory, PORT: String(port), DATABASE_URL: '', REDIS_URL: '' },
  stdio: ['ignore', 'pipe', 'inherit'],
});
let said = '';
server.stdout.on('data', (bytes) => {
  said += bytes;
});

async function key() {
  for (;;) {
    const found = /Admin API key +(mk_\S+)/.exec(said);
    if (found) return found[1];
    if (server.exitCode !== null || Date.now() - began > 90_000)
      throw new Error(`the server did not start:\n${said}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

let passed = 0;
let failed = 0;
try {
  const apiKey = await key();
  console.log(`ready after ${((Date.now() - began) / 1000).toFixed(1)} s`);
  const steps = stepsOf(readFileSync(file, 'utf8'));
  const mark = `=== ${Math.random()}`;
  // One shell for all, so that what one block exports the next one has.
  const script = steps
    .map(({ run }) => `${run.replaceAll('localhost:8000', `localhost:${port}`)}\necho; echo '${mark}'`)
    .join('\n');
  const shell = spawnSync('bash', ['-c', script], {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, API_KEY: apiKey },
  });
  const outputs = shell.stdout.split(mark);
  for (const [i, { run, prints }] of steps.entries()) {
    const output = (outputs[i] ?? '').trim();
    if (prints === undefined || patternOf(prints).test(output)) {
      passed += 1;
      continue;
    }
    failed += 1;
    console.log(`\nTHE README SAYS\n${run}prints\n${prints}\nBUT IT PRINTS\n${output}\n${shell.stderr}`);
  }
  if (steps.length === 0) throw new Error('the README has no commands');
} finally {
  server.kill('SIGTERM');
  await new Promise((resolve) => server.once('exit', resolve));
  rmSync(directory, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
