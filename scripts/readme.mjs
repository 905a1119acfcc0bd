// Runs the commands of the README and of the guides as a newcomer pastes them, each document on a server of its own, and
// compares what they print with what the document says.
//   node scripts/readme.mjs [document ...]
// A `bash` block is run; a `json` or `text` block right after it is what it prints, `…` standing for anything. An `env`
// block holds settings that the server of the document starts with.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const guides = join(root, 'docs', 'guides');
const documents =
  process.argv.length > 2 ? process.argv.slice(2) : [join(root, 'README.md'), ...guidesIn(guides)];

function guidesIn(folder) {
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder).filter((name) => name.endsWith('.md'));
  return names.sort().map((name) => join(folder, name));
}

const blocksOf = (markdown) =>
  [...markdown.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language, text]) => ({ language, text }));

/** Settings of `env` blocks: lines NAME=value. */
const settingsOf = (blocks) =>
  Object.fromEntries(
    blocks
      .filter(({ language }) => language === 'env')
      .flatMap(({ text }) =>
        [...text.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name, value]),
      ),
  );

/** Each `bash` block with the block that follows it: what to run, and what it prints. */
function stepsOf(blocks) {
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

/** Starts a server with these settings, on a free port and an empty directory. */
async function startServer(settings) {
  const directory = mkdtempSync(join(tmpdir(), 'manushya-readme-'));
  const port = await freePort();
  const began = Date.now();
  const child = spawn(process.execPath, [join(root, 'scripts/start.mjs')], {
    cwd: root,
    env: {
      ...process.env,
      ...settings,
      DATA_DIR: directory,
      PORT: String(port),
      DATABASE_URL: '',
      REDIS_URL: '',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (bytes) => {
    said += bytes;
  });
  const stop = async () => {
    child.kill('SIGTERM');
    if (child.exitCode === null) await new Promise((resolve) => child.once('exit', resolve));
    rmSync(directory, { recursive: true, force: true });
  };
  for (;;) {
    const found = /Admin API key +(mk_\S+)/.exec(said);
    const ms = Date.now() - began;
    if (found) return { apiKey: found[1], port, directory, ms, stop };
    if (child.exitCode !== null || ms > 90_000) {
      await stop();
      throw new Error(`the server did not start:\n${said}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Runs a script of the shell to its end, of two minutes at most; answers what it printed. */
async function runShell(script, env) {
  const child = spawn('bash', ['-c', script], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 120_000,
  });
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'])
    child[name].setEncoding('utf8').on('data', (text) => {
      said[name] += text;
    });
  await once(child, 'close');
  return said;
}

/** Runs one document; answers how many of its commands did what it says. */
async function runDocument(file) {
  const name = relative(root, file);
  const blocks = blocksOf(readFileSync(file, 'utf8'));
  const steps = stepsOf(blocks);
  if (steps.length === 0) throw new Error(`${name} has no commands`);
  const server = await startServer(settingsOf(blocks));
  let failed = 0;
  try {
    const mark = `=== ${Math.random()}`;
    // One shell for all, so that what one block exports the next one has.
    const script = steps
      .map(
        ({ run }) => `${run.replaceAll('localhost:8000', `localhost:${server.port}`)}\necho; echo '${mark}'`,
      )
      .join('\n');
    const shell = await runShell(script, { API_KEY: server.apiKey, DATA_DIR: server.directory });
    const outputs = shell.stdout.split(mark);
    for (const [i, { run, prints }] of steps.entries()) {
      const output = (outputs[i] ?? '').trim();
      // A command that was never reached has not passed, whatever it was to print.
      if (i < outputs.length - 1 && (prints === undefined || patternOf(prints).test(output))) continue;
      failed += 1;
      console.log(`\n${name} SAYS\n${run}prints\n${prints}\nBUT IT PRINTS\n${output}\n${shell.stderr}`);
    }
  } finally {
    await server.stop();
  }
  const seconds = (server.ms / 1000).toFixed(1);
  console.log(`${name}: ${steps.length - failed} of ${steps.length}, server ready after ${seconds} s`);
  return { passed: steps.length - failed, failed };
}

let passed = 0;
let failed = 0;
const waiting = [...documents];
const work = async () => {
  for (let file = waiting.shift(); file; file = waiting.shift()) {
    const counts = await runDocument(file);
    passed += counts.passed;
    failed += counts.failed;
  }
};
await Promise.all([work(), work()]);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
