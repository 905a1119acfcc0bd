import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

test('the value of an option may be the next word', () => {
  const script = fileURLToPath(new URL('test.mjs', import.meta.url));
  const args = [script, '--test-name-pattern', 'two words', 'none.test.ts'];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  assert.deepEqual([status, stderr], [2, 'no such file: none.test.ts\n']);
});
