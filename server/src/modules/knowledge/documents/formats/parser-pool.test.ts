import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { programFiles } from './parser-pool.ts';

it('a parser may read what a linked node_modules leads to, and nothing beside the program', (t) => {
  const there = realpathSync(mkdtempSync(join(tmpdir(), 'manushya-program-')));
  t.after(() => rmSync(there, { recursive: true }));
  const root = join(there, 'program');
  mkdirSync(join(root, 'server/src'), { recursive: true });
  mkdirSync(join(there, 'packages'));
  writeFileSync(join(root, 'package.json'), '{}');
  symlinkSync(join(there, 'packages'), join(root, 'node_modules'));
  assert.deepEqual(programFiles(root), [
    join(root, 'node_modules'),
    join(there, 'packages'),
    join(root, 'package.json'),
    join(root, 'server/src'),
  ]);
});
