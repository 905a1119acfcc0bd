import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A file of the program as text; `path` is relative to `server/`, with slashes. */
export interface Source {
  path: string;
  text: string;
}

/** One import or re-export. `typeOnly` ones are gone when the program runs. */
export interface Import {
  from: string;
  specifier: string;
  /** The file it names, relative to `server/`; undefined for packages and node's own modules. */
  to: string | undefined;
  typeOnly: boolean;
  names: string[];
}

/** A template literal: the constant text around each `${…}`, what stands in them, and what it is tagged with. */
export interface Template {
  tag: string;
  strings: string[];
  values: string[];
  /** Of the opening back-tick. */
  at: number;
  /** Name of the nearest function or constant declared at the left margin above it. */
  owner: string;
}

const root = fileURLToPath(new URL('../', import.meta.url));

const filesUnder = (folder: string, wanted: (name: string) => boolean): Source[] =>
  readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && wanted(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .map((file) => ({
      path: relative(root, file).replaceAll('\\', '/'),
      text: readFileSync(file, 'utf8'),
    }));

/** The program itself, without its tests. */
export const programSources = (): Source[] =>
  filesUnder('src', (name) => name.endsWith('.ts') && !/\.test\.ts$|\.d\.ts$/.test(name));

export const migrationSources = (): Source[] => filesUnder('migrations', (name) => name.endsWith('.sql'));

interface Scan {
  /** The text with comments, and what stands inside strings, templates and regular expressions, blanked out. */
  code: string;
  templates: Template[];
}

const scans = new Map<string, Scan>();

/** Reads TypeScript far enough to tell code from comments, strings, templates and regular expressions. */
export function scan(text: string): Scan {
  const known = scans.get(text);
  if (known) return known;
  const code =
    [...text].length === text.length
      ? text.split('')
      : Array.from({ length: text.length }, (_, i) => text[i]!);
  const templates: Template[] = [];
  const blank = (from: number, to: number) => {
    for (let i = from; i < to; i++) if (code[i] !== '\n') code[i] = ' ';
  };

  /** Reads code from `at` to the end, or to the brace that closes a `${`; answers where it stopped. */
  const readCode = (at: number, inTemplate: boolean): number => {
    let depth = 0;
    let i = at;
    while (i < text.length) {
      const two = text.slice(i, i + 2);
      if (two === '//' || two === '/*') {
        const end = two === '//' ? text.indexOf('\n', i) : text.indexOf('*/', i + 2) + 2;
        const stop = end < (two === '//' ? 0 : 2) ? text.length : end;
        blank(i, stop);
        i = stop;
      } else if (text[i] === "'" || text[i] === '"') {
        const stop = endOfString(text, i);
        blank(i + 1, stop - 1);
        i = stop;
      } else if (text[i] === '`') {
        i = readTemplate(i);
      } else if (text[i] === '/' && beginsRegex(code, i)) {
        const stop = endOfRegex(text, i);
        blank(i + 1, stop - 1);
        i = stop;
      } else {
        if (text[i] === '{') depth += 1;
        if (text[i] === '}') {
          if (inTemplate && depth === 0) return i;
          depth -= 1;
        }
        i += 1;
      }
    }
    return i;
  };

  const readTemplate = (at: number): number => {
    const template: Template = { tag: tagBefore(code, at), strings: [], values: [], at, owner: '' };
    const place = templates.push(template) - 1;
    let from = at + 1;
    let i = from;
    while (i < text.length && text[i] !== '`') {
      if (text[i] === '\\') i += 2;
      else if (text.startsWith('${', i)) {
        template.strings.push(text.slice(from, i));
        const end = readCode(i + 2, true);
        template.values.push(text.slice(i + 2, end).trim());
        blank(from, i);
        i = end + 1;
        from = i;
      } else i += 1;
    }
    template.strings.push(text.slice(from, i));
    blank(from, i);
    templates[place] = template;
    return i + 1;
  };

  readCode(0, false);
  const scanned = { code: code.join(''), templates };
  for (const template of templates) template.owner = ownerOf(scanned.code, template.at);
  scans.set(text, scanned);
  return scanned;
}

function endOfString(text: string, at: number): number {
  let i = at + 1;
  while (i < text.length && text[i] !== text[at] && text[i] !== '\n') i += text[i] === '\\' ? 2 : 1;
  return i + 1;
}

function endOfRegex(text: string, at: number): number {
  let inClass = false;
  let i = at + 1;
  for (; i < text.length && (inClass || text[i] !== '/') && text[i] !== '\n'; i++) {
    if (text[i] === '\\') i += 1;
    else if (text[i] === '[') inClass = true;
    else if (text[i] === ']') inClass = false;
  }
  return i + 1;
}

/** A slash divides after a value and begins a regular expression after anything else. */
function beginsRegex(code: string[], at: number): boolean {
  const before = code
    .slice(Math.max(0, at - 40), at)
    .join('')
    .trimEnd();
  return (
    before === '' || /[(,=:[!&|?{};+\-*%<>~^]$|\b(return|typeof|case|in|of|await|yield|void)$/.test(before)
  );
}

function tagBefore(code: string[], at: number): string {
  let before = code
    .slice(Math.max(0, at - 600), at)
    .join('')
    .trimEnd();
  if (before.endsWith('>')) {
    let depth = 0;
    let i = before.length - 1;
    for (; i >= 0; i--) {
      if (before[i] === '>' && before[i - 1] !== '=') depth += 1;
      if (before[i] === '<' && --depth === 0) break;
    }
    before = before.slice(0, Math.max(0, i)).trimEnd();
  }
  return /(?:^|[^\w$.])([A-Za-z_$][\w$]*)$/.exec(before)?.[1] ?? '';
}

function ownerOf(code: string, at: number): string {
  const declared = [
    ...code
      .slice(0, at)
      .matchAll(
        /^(?:export )?(?:default )?(?:async )?(?:function\*? |const |let |class )([A-Za-z_$][\w$]*)/gm,
      ),
  ];
  return declared.at(-1)?.[1] ?? '';
}

/** The statements written as sql`…` in a file. */
export const sqlTemplates = (source: Source): Template[] =>
  scan(source.text).templates.filter(({ tag }) => tag === 'sql');

const importForm =
  /(?:^|[^\w$.])(import|export)\s*(type\b(?!\s*(?:,|from\b)))?\s*(\{[^}]*\}|\*(?:\s*as\s+[\w$]+)?|[\w$]+(?:\s*,\s*(?:\{[^}]*\}|\*\s*as\s+[\w$]+))?)\s*from\s*(?=['"])|(?:^|[^\w$.])import\s*\(?\s*(?=['"])/g;

/** Every import, re-export and `import()` of a file. */
export function importsOf({ path, text }: Source): Import[] {
  return [...scan(text).code.matchAll(importForm)].map((match) => {
    const at = match.index + match[0].length;
    const specifier = text.slice(at + 1, endOfString(text, at) - 1);
    return {
      from: path,
      specifier,
      to: resolve(path, specifier),
      typeOnly: match[2] !== undefined,
      names: [...(match[3] ?? '').matchAll(/(?:type\s+)?([\w$]+)(?:\s+as\s+[\w$]+)?/g)].map(
        ([, name]) => name!,
      ),
    };
  });
}

function resolve(path: string, specifier: string): string | undefined {
  if (specifier.startsWith('.')) return join(dirname(path), specifier).replaceAll('\\', '/');
  const alias = /^#(platform|modules|test)\/(.+)$/.exec(specifier);
  if (!alias) return undefined;
  return alias[1] === 'test' ? `test/${alias[2]}` : `src/${alias[1]}/${alias[2]}`;
}
