import assert from 'node:assert/strict';
import test from 'node:test';
import { chunkText } from './chunk.ts';
import { demoDocuments } from './demo.ts';

test('the demo corpus is three documents and ten chunks, each under a heading of its own', () => {
  const chunks = demoDocuments.flatMap((document) => chunkText(document.text, document));
  assert.equal(demoDocuments.length, 3);
  assert.equal(chunks.length, 10);
  const paths = chunks.map((chunk) => chunk.heading_path.join(' > '));
  assert.equal(new Set(paths).size, 10);
  for (const path of paths) assert.match(path, /^Agent 2\.0 /);
  for (const chunk of chunks) assert.match(chunk.text, /^##? /);
});

test('the demo documents have distinct ids and file names', () => {
  assert.deepEqual(
    demoDocuments.map(({ document_id, filename }) => [document_id, filename]),
    [
      ['agent-2-release-gates', 'agent-2-release-gates.md'],
      ['agent-2-testing-strategy', 'agent-2-testing-strategy.md'],
      ['agent-2-operations', 'agent-2-operations.md'],
    ],
  );
});
