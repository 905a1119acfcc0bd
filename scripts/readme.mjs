// Runs the commands of the README and of the guides as a newcomer pastes them, each document on a server of its own, and
// compares what they print with what the document says. The README's begins with nothing; the others
// with a copy of what such a beginning leaves, since making it anew takes longer than all they do.
//   node scripts/readme.mjs [document ...]
// A `bash` block is run, and so is an `sh` block, with the server stopped meanwhile (the embedded database has one process);
// all its commands have to succeed. A `json` or `text` block right after it is what it prints, `…` standing for anything.
// An `env` block holds settings that the server of the document starts with. `console` is only read.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
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

/** Each block to run with the block that follows it: what it prints. */
function stepsOf(blocks) {
  return blocks.flatMap(({ language, text }, i) => {
    if (language !== 'bash' && language !== 'sh') return [];
    const next = blocks[i + 1];
    const prints = next && ['json', 'text'].includes(next.language) ? next.text.trim() : undefined;
    return [{ run: text, prints, stopped: language === 'sh' }];
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

/** A server with these settings, on a free port and an empty directory or a copy; it can be stopped and started again. */
async function serverOf(settings, copied) {
  const directory = mkdtempSync(join(tmpdir(), 'manushya-readme-'));
  if (copied) cpSync(copied, directory, { recursive: true });
  const port = await freePort();
  const env = { ...settings, DATA_DIR: directory, DATABASE_URL: '', REDIS_URL: '' };
  let child;
  const stop = async () => {
    child.kill('SIGTERM');
    if (child.exitCode === null) await new Promise((resolve) => child.once('exit', resolve));
  };
  /** Answers what it said until it was ready. */
  const start = async () => {
    const began = Date.now();
    child = spawn(process.execPath, [join(root, 'scripts/start.mjs')], {
      cwd: root,
      env: { ...process.env, ...env, PORT: String(port) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    child.stdout.on('data', (bytes) => {
      said += bytes;
    });
    while (!said.split('Manushya is ready at')[1]?.includes('\n\n')) {
      if (child.exitCode !== null || Date.now() - began > 90_000) {
        await stop();
        throw new Error(`the server did not start:\n${said}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return { said, ms: Date.now() - began };
  };
  const remove = () => rmSync(directory, { recursive: true, force: true });
  return { directory, env, port, start, stop, remove };
}

const keyIn = (said) => /Admin API key +(mk_\S+)/.exec(said)?.[1];

/** What a first start leaves when it is stopped, and the key it showed; the same for all. */
let template;
function beginning() {
  template ??= begin();
  return template;
}

async function begin() {
  const server = await serverOf({});
  const { said } = await server.start();
  await server.stop();
  return { directory: server.directory, key: keyIn(said), remove: server.remove };
}

/**
 * Runs a script of the shell to its end, of four minutes at most; answers what it printed. Where the script says `asks`, `obey`
 * does what it asks for, while it waits for a line on its descriptor 3.
 */
async function runShell(script, env, asks, obey) {
  const child = spawn('bash', ['-c', script], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    timeout: 240_000,
  });
  const said = { stdout: '', stderr: '' };
  let obeyed = 0;
  let failure;
  for (const name of ['stdout', 'stderr'])
    child[name].setEncoding('utf8').on('data', (text) => {
      said[name] += text;
      while (said.stdout.split(asks).length - 1 > obeyed) {
        obeyed += 1;
        obey(obeyed).then(
          () => child.stdio[3].write('\n'),
          (error) => {
            failure = error;
            child.kill();
          },
        );
      }
    });
  await once(child, 'close');
  if (failure) throw failure;
  return { ...said, stdout: said.stdout.replaceAll(asks, '') };
}

/** Runs one document; answers how many of its commands did what it says. */
async function runDocument(file) {
  const name = relative(root, file);
  const blocks = blocksOf(readFileSync(file, 'utf8'));
  const steps = stepsOf(blocks);
  if (steps.length === 0) throw new Error(`${name} has no commands`);
  const begun = name === 'README.md' ? undefined : await beginning();
  const server = await serverOf(settingsOf(blocks), begun?.directory);
  let failed = 0;
  let ready;
  try {
    ready = await server.start();
    const apiKey = begun?.key ?? keyIn(ready.said);
    const mark = `=== ${Math.random()}`;
    const asks = `=? ${Math.random()}`;
    const broken = 'A COMMAND FAILED';
    const ask = `echo '${asks}'; read -r -u 3`;
    // One shell for all, so that what one block exports the next one has.
    const script = steps
      .map(({ run, stopped }) => {
        const here = run.replaceAll('localhost:8000', `localhost:${server.port}`);
        const lines = stopped ? `${ask}\ntrap 'echo "${broken}"' ERR\n${here}\ntrap - ERR\n${ask}` : here;
        return `${lines}\necho; echo '${mark}'`;
      })
      .join('\n');
    const toggle = (times) => (times % 2 ? server.stop() : server.start());
    const shell = await runShell(script, { ...server.env, API_KEY: apiKey }, asks, toggle);
    const outputs = shell.stdout.split(mark);
    for (const [i, { run, prints, stopped }] of steps.entries()) {
      const output = (outputs[i] ?? '').trim();
      // A command that was never reached has not passed, whatever it was to print.
      const whole = i < outputs.length - 1 && !(stopped && output.includes(broken));
      if (whole && (prints === undefined || patternOf(prints).test(output))) continue;
      failed += 1;
      console.log(`\n${name} SAYS\n${run}prints\n${prints}\nBUT IT PRINTS\n${output}\n${shell.stderr}`);
    }
  } finally {
    await server.stop();
    server.remove();
  }
  const seconds = (ready.ms / 1000).toFixed(1);
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
(await template)?.remove();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
