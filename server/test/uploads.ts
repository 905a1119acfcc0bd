import assert from 'node:assert/strict';
import { type Caller, callServer, eventually, newTenant, type Reply, testServer } from '#test/harness.ts';
import type { Running } from '../src/app.ts';

/** One part of a form; with a file name it is a file. */
export interface Part {
  name: string;
  value: string | Buffer;
  filename?: string;
  type?: string;
}

/** A multipart/form-data body (RFC 7578) and its header. */
export function form(parts: Part[]) {
  const boundary = 'a-boundary-of-the-tests';
  const chunks: Buffer[] = [];
  for (const { name, value, filename, type } of parts) {
    const file = filename === undefined ? '' : `; filename="${filename}"`;
    const media = type === undefined ? '' : `\r\nContent-Type: ${type}`;
    chunks.push(
      Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"${file}${media}\r\n\r\n`),
    );
    chunks.push(Buffer.from(value), Buffer.from('\r\n'));
  }
  chunks.push(Buffer.from(`--${boundary}--\r\n`));
  return {
    payload: Buffer.concat(chunks),
    headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
  };
}

/** Uploads a form with a caller's credential. */
export async function upload(
  caller: Caller,
  parts: Part[],
  headers: Record<string, string> = {},
  server?: Running,
): Promise<Reply> {
  const { payload, headers: own } = form(parts);
  return callServer(server ?? (await testServer()), 'POST', '/v1/documents', {
    token: caller.token,
    payload,
    headers: { ...own, ...headers },
  });
}

export const file = (value: string | Buffer, type = 'text/plain', filename = 'example.txt'): Part => ({
  name: 'file',
  value,
  filename,
  type,
});

/** Says which corpus an upload goes into. */
export const corpus: Part = { name: 'corpus_id', value: 'c1' };

/** A tenant with the corpus `c1`. */
export async function newLibrary(server?: Running): Promise<Caller> {
  const caller = await newTenant('admin', server);
  assert.equal((await caller.call('POST', '/v1/corpora', { id: 'c1', name: 'Library' })).status, 201);
  return caller;
}

/** Waits for the end of a document's ingestion, which must be this one; answers the document. */
export async function done(caller: Caller, id: string, status = 'succeeded', timeoutMs = 150_000) {
  const reply = await eventually(
    `${id} to be ${status}`,
    async () => {
      const { body } = await caller.call('GET', `/v1/documents/${id}`);
      return ['succeeded', 'failed'].includes(body.data.status) && body;
    },
    timeoutMs,
  );
  assert.equal(reply.data.status, status, reply.data.failure_reason);
  return reply.data;
}

/** Stores a text as a document of `c1`. */
export const put = (caller: Caller, body: object, headers?: Record<string, string>) =>
  caller.call('POST', '/v1/documents/text', { corpus_id: 'c1', ...body }, headers);

export async function stored(caller: Caller, id: string, text: string, more: object = {}) {
  const reply = await put(caller, { document_id: id, text, ...more });
  assert.equal(reply.status, 202, reply.text);
  return done(caller, id);
}

export const search = (caller: Caller, query: string, more: object = {}) =>
  caller.call('POST', '/v1/corpora/c1/search', { query, ...more });

export const codeOf = ({ status, body }: Reply) => [status, body?.error?.code];
