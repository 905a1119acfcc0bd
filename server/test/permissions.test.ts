import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { RESOURCE_ACTIONS } from '#modules/access/policy/service.ts';
import { routes } from '../src/app.ts';
import { permissionsDocument } from '../src/commands/permissions.ts';

const document = permissionsDocument(routes);
const root = new URL('../../', import.meta.url);

it('the page about permissions is what the code makes of it', () => {
  assert.equal(readFileSync(new URL('docs/guides/permissions.md', root), 'utf8'), document);
});

it('the page has every permission once, and every route where it asks for its own', () => {
  const permissions = Object.entries(RESOURCE_ACTIONS).flatMap(([resource, actions]) =>
    actions.map((action) => `${resource}:${action}`),
  );
  const written = document.split('\n## ').flatMap((section) => {
    const [resource = ''] = section.split('\n', 1);
    return [...section.matchAll(/^\| `([a-z]+)` .*$/gm)].map(([line, action]) => ({
      permission: `${resource}:${action}`,
      line,
    }));
  });
  assert.deepEqual(
    written.map(({ permission }) => permission),
    permissions,
  );
  for (const { method, path, permission, alsoNeeds, hidden } of routes.filter((route) => route.permission)) {
    if (hidden) continue;
    const found = written.find((one) => one.permission === permission);
    const place = `\`${method} ${path.replace(/:(\w+)/g, '{$1}')}\``;
    assert.ok(found?.line.includes(place), `${place} asks for ${permission}`);
    for (const other of alsoNeeds ?? []) {
      const line = written.find((one) => one.permission === other.permission)?.line;
      assert.ok(line?.includes(`(${place})`), `${place} asks for ${other.permission} too`);
    }
  }
});

it('the contract says of each operation what it needs', () => {
  const { paths } = JSON.parse(readFileSync(new URL('openapi.json', root), 'utf8'));
  const operations = Object.values(paths).flatMap((one) => Object.values(one as object));
  const asking = operations.filter((operation) => operation['x-permission']);
  assert.equal(asking.length, routes.filter(({ permission, hidden }) => permission && !hidden).length);
  for (const operation of asking) {
    const others: { permission: string }[] = operation['x-also-permissions'] ?? [];
    for (const one of [operation['x-permission'], ...others.map(({ permission }) => permission)])
      assert.ok(operation.description.includes(`\`${one}\``), operation.operationId);
  }
  const { put } = paths['/v1/memory/{memory_id}'];
  assert.equal(put.description, 'Needs the permissions `memory:update` and `memory:read`.');
});
