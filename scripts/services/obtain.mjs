// Finds PostgreSQL with pgvector, and Redis, on this machine; on Debian and Ubuntu, unpacks them from the machine's own
// package sources into a cache folder. Nothing is installed into the system, except a missing compiler.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';

const MINIMUM_POSTGRES = 15;
// 0.8.0 brought iterative index scans, without which a filtered search silently returns too few rows.
const MINIMUM_PGVECTOR = [0, 8, 0];
const BUILDABLE_POSTGRES = [17, 16, 15, 18];
const LATER_SUITES = { debian: ['trixie', 'forky', 'sid'], ubuntu: ['resolute', 'questing', 'devel'] };

export class ServicesError extends Error {}

/**
 * @returns {{ bin: string, libraries: string }} folder of initdb, postgres and psql; value for LD_LIBRARY_PATH or ''
 * @throws {ServicesError} when neither an installed server nor the package sources can supply it
 */
export function obtainPostgres(log) {
  return installedPostgres() ?? cached('postgres', log, unpackPostgres);
}

/** @returns {{ server: string, libraries: string }} path of redis-server or valkey-server; value for LD_LIBRARY_PATH or '' */
export function obtainRedis(log) {
  for (const name of ['redis-server', 'valkey-server']) {
    const server = onPath(name);
    if (server) return { server, libraries: '' };
  }
  return cached('redis', log, unpackRedis);
}

/** Runs a program to its end; a failure throws with its last words. */
export function run(program, args, options = {}) {
  const done = spawnSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 2 ** 26,
    ...options,
  });
  if (done.status === 0) return done.stdout ?? '';
  const words =
    done.error?.message ?? `${done.stderr || done.stdout || ''}`.trim().split('\n').slice(-8).join('\n');
  throw new ServicesError(`${program} ${args[0] ?? ''} failed (${done.status ?? done.signal}): ${words}`);
}

function installedPostgres() {
  const fromPath = onPath('pg_config');
  const folders = [
    ...(fromPath ? [spawnSync(fromPath, ['--bindir'], { encoding: 'utf8' }).stdout?.trim()] : []),
    ...['/usr/lib/postgresql', '/opt/homebrew/opt', '/usr/local/opt']
      .flatMap((folder) =>
        existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name, 'bin')) : [],
      )
      .sort()
      .reverse(),
  ];
  const bin = folders.find((folder) => folder && existsSync(join(folder, 'postgres')) && isUsable(folder));
  return bin && { bin, libraries: '' };
}

function isUsable(bin) {
  const major = Number(/ (\d+)/.exec(run(join(bin, 'postgres'), ['--version']))?.[1]);
  const share = spawnSync(join(bin, 'pg_config'), ['--sharedir'], { encoding: 'utf8' }).stdout?.trim();
  const folders = [share, `/usr/share/postgresql/${major}`].filter(Boolean);
  const control = folders
    .map((folder) => join(folder, 'extension', 'vector.control'))
    .find((file) => existsSync(file));
  if (major < MINIMUM_POSTGRES || control === undefined) return false;
  return atLeast(
    /default_version = '([\d.]+)'/.exec(readFileSync(control, 'utf8'))?.[1] ?? '0',
    MINIMUM_PGVECTOR,
  );
}

function atLeast(version, minimum) {
  const parts = version.split('.').map(Number);
  const differs = minimum.findIndex((part, i) => (parts[i] ?? 0) !== part);
  return differs === -1 || (parts[differs] ?? 0) > minimum[differs];
}

function onPath(name) {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((file) => existsSync(file));
}

/** A folder is complete or absent: it is made under another name and renamed, so a killed build leaves nothing half done. */
function cached(name, log, build) {
  const system = aptSystem();
  // Servers refuse to run as root, and the account they run as cannot look into root's home.
  const base =
    process.getuid() === 0 ? '/var/cache' : (process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'));
  const cache = join(base, 'manushya');
  const target = join(cache, `${name}-${system.codename}-${process.arch}`);
  if (!existsSync(join(target, 'found.json'))) {
    mkdirSync(cache, { recursive: true, mode: 0o755 });
    const work = mkdtempSync(join(cache, 'build-'));
    try {
      run('chmod', ['755', work]);
      const found = build({ ...system, work, log });
      writeFileSync(join(work, 'found.json'), JSON.stringify(found));
      for (const scrap of ['apt', 'source']) rmSync(join(work, scrap), { recursive: true, force: true });
      rmSync(target, { recursive: true, force: true });
      renameSync(work, target);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  const found = JSON.parse(readFileSync(join(target, 'found.json'), 'utf8'));
  return Object.fromEntries(Object.entries(found).map(([key, path]) => [key, join(target, path)]));
}

/** The distribution and one package source of its own, as deb822 fields, from either format of apt's source files. */
function aptSystem() {
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  const field = (name) => new RegExp(`^${name}="?([^"\\n]*)`, 'm').exec(release)?.[1] ?? '';
  const [id, codename] = [field('ID'), field('VERSION_CODENAME')];
  if (LATER_SUITES[id] === undefined || !onPath('apt-get')) {
    throw new ServicesError(
      'no PostgreSQL 15+ with pgvector 0.8+ and Redis were found, and only Debian and Ubuntu can supply them by themselves: install them, or set TEST_DATABASE_URL and TEST_REDIS_URL',
    );
  }
  const parts = '/etc/apt/sources.list.d';
  const files = ['/etc/apt/sources.list', ...readdirSync(parts).map((name) => join(parts, name))];
  const text = (suffix) =>
    files
      .filter((file) => file.endsWith(suffix) && existsSync(file))
      .map((file) => readFileSync(file, 'utf8'));
  const stanzas = text('.sources').flatMap((content) => content.replace(/^#.*\n/gm, '').split(/\n\s*\n/));
  const lines = text('.list')
    .flatMap((content) => content.split('\n'))
    .map(stanzaOfLine);
  const main = [...stanzas, ...lines].find(
    (stanza) => stanza && new RegExp(`^Suites:.*\\b${codename}(\\s|$)`, 'm').test(stanza),
  );
  if (main === undefined) throw new ServicesError(`apt has no package source for ${codename}`);
  return { id, codename, main: main.trim() };
}

function stanzaOfLine(line) {
  const match = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)$/.exec(line.trim());
  if (!match) return undefined;
  const signedBy = /signed-by=(\S+)/.exec(match[1] ?? '')?.[1];
  const fields = [`Types: deb`, `URIs: ${match[2]}`, `Suites: ${match[3]}`, `Components: ${match[4]}`];
  return [...fields, ...(signedBy ? [`Signed-By: ${signedBy}`] : [])].join('\n');
}

/** An apt of its own: fresh lists without root, the machine's sources plus `extra`, the machine's list of what is installed. */
function privateApt(work, extra) {
  const apt = join(work, 'apt');
  for (const folder of ['lists/partial', 'cache/archives/partial', 'sources'])
    mkdirSync(join(apt, folder), { recursive: true });
  run('cp', ['-r', '/etc/apt/sources.list.d/.', join(apt, 'sources')]);
  if (existsSync('/etc/apt/sources.list'))
    run('cp', ['/etc/apt/sources.list', join(apt, 'sources', 'machine.list')]);
  if (extra) writeFileSync(join(apt, 'sources', 'later-suite.sources'), `${extra}\n`);
  const settings = [
    'Dir::Etc::sourcelist "/dev/null";',
    `Dir::Etc::sourceparts "${join(apt, 'sources')}";`,
    `Dir::State::Lists "${join(apt, 'lists')}";`,
    `Dir::Cache "${join(apt, 'cache')}";`,
    ...(process.getuid() === 0 ? ['APT::Sandbox::User "root";'] : []),
  ];
  writeFileSync(join(apt, 'apt.conf'), settings.join('\n'));
  const env = { ...process.env, APT_CONFIG: join(apt, 'apt.conf'), LC_ALL: 'C' };
  const get = (args, cwd = work) => run('apt-get', ['-qq', ...args], { env, cwd });
  get(['update', '-o', 'APT::Update::Error-Mode=any']);
  const candidate = (name) =>
    /Candidate: (?:\d+:)?(\d\S*)/.exec(run('apt-cache', ['policy', name], { env, cwd: work }))?.[1];
  return { get, candidate };
}

/** Unpacks `names` and whatever they need that this machine lacks. The C library stays the machine's own. */
function unpack(apt, names, { alone = [] } = {}, work) {
  const plan = apt.get(['-s', '--no-install-recommends', '-o', 'Debug::NoLocking=true', 'install', ...names]);
  const needed = [...plan.matchAll(/^Inst (\S+)/gm)].map((match) => match[1]);
  const kept = needed.filter((name) => !/^(libc6|libc-bin|locales|libc-l10n)(:|$)/.test(name));
  const folder = join(work, 'apt', 'packages');
  mkdirSync(folder, { recursive: true });
  apt.get(['download', ...new Set([...names, ...alone, ...kept])], folder);
  for (const file of readdirSync(folder)) run('dpkg-deb', ['-x', join(folder, file), work]);
}

function libraryPath(work) {
  const folder = readdirSync(join(work, 'usr', 'lib')).find((name) => /-linux-gnu/.test(name));
  return join('usr', 'lib', folder ?? '');
}

function unpackRedis({ work, log }) {
  log('Unpacking Redis from the package sources of this machine ...');
  unpack(privateApt(work), ['redis-server'], {}, work);
  return { server: 'usr/bin/redis-server', libraries: libraryPath(work) };
}

function unpackPostgres(system) {
  const { work, log } = system;
  log('Unpacking PostgreSQL from the package sources of this machine ...');
  const apt = privateApt(work);
  const available = BUILDABLE_POSTGRES.filter((major) => apt.candidate(`postgresql-${major}`));
  const packaged = available.find((major) =>
    atLeast(apt.candidate(`postgresql-${major}-pgvector`) ?? '0', MINIMUM_PGVECTOR),
  );
  const major = packaged ?? available[0];
  if (major === undefined)
    throw new ServicesError(`the package sources hold no PostgreSQL ${MINIMUM_POSTGRES} or later`);
  const names = [`postgresql-${major}`, `postgresql-client-${major}`, 'libpq5'];
  if (packaged) unpack(apt, [...names, `postgresql-${major}-pgvector`], {}, work);
  else {
    unpack(apt, names, { alone: [`postgresql-server-dev-${major}`] }, work);
    buildPgvector(system, major);
  }
  return { bin: `usr/lib/postgresql/${major}/bin`, libraries: libraryPath(work) };
}

function buildPgvector({ id, codename, main, work, log }, major) {
  ensureCompiler(log);
  const source = join(work, 'source');
  const failures = [];
  const suites = LATER_SUITES[id].filter((suite) => suite !== codename);
  const found = suites.some((suite) => {
    const later = main.replace(/^Types:.*/m, 'Types: deb-src').replace(/^Suites:.*/m, `Suites: ${suite}`);
    rmSync(source, { recursive: true, force: true });
    mkdirSync(source);
    try {
      privateApt(work, later).get(['source', '--download-only', `pgvector/${suite}`], source);
    } catch (error) {
      failures.push(`${suite}: ${error.message}`);
      return false;
    }
    return atLeast(
      /^pgvector_([\d.]+)/.exec(readdirSync(source).find((name) => name.includes('.orig.')) ?? '')?.[1] ??
        '0',
      MINIMUM_PGVECTOR,
    );
  });
  if (!found) throw new ServicesError(`no source package of pgvector 0.8 or later: ${failures.join('; ')}`);
  const archive = readdirSync(source).find((name) => name.includes('.orig.'));
  log(`Building ${archive.replace('.orig.tar.gz', '')} for PostgreSQL ${major} ...`);
  run('tar', ['xf', archive, '--strip-components=1'], { cwd: source });
  const postgres = join(work, 'usr', 'lib', 'postgresql', String(major));
  const settings = [
    `PG_CONFIG=${join(postgres, 'bin', 'pg_config')}`,
    `PGXS=${join(postgres, 'lib', 'pgxs', 'src', 'makefiles', 'pgxs.mk')}`,
    `CPPFLAGS=-I${join(work, 'usr', 'include', 'postgresql', String(major), 'server')}`,
    // Neither this machine's instruction set nor the clang that PostgreSQL was built with.
    'OPTFLAGS=',
    'with_llvm=no',
  ];
  const env = { ...process.env, LD_LIBRARY_PATH: join(work, libraryPath(work)) };
  run('make', ['-s', '-j2', ...settings], { cwd: source, env });
  run('make', ['-s', 'install', ...settings], { cwd: source, env });
}

function ensureCompiler(log) {
  if (onPath('gcc') && onPath('make')) return;
  const sudo = process.getuid() === 0 ? [] : ['sudo', '-n'];
  if (sudo.length > 0 && spawnSync('sudo', ['-n', 'true']).status !== 0) {
    throw new ServicesError(
      'pgvector has to be built here and needs gcc and make: install them and start again',
    );
  }
  log('Installing gcc and make ...');
  const install = (args) => {
    const [program, ...rest] = [...sudo, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-qq', ...args];
    run(program, rest);
  };
  install(['update']);
  install(['install', '-y', '--no-install-recommends', 'gcc', 'libc6-dev', 'make']);
}
