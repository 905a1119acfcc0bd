import type { AddressInfo } from 'node:net';
import type { Running } from '../src/app.ts';
import { eventually } from './harness.ts';

/** One frame of a stream of server-sent events, as it came. */
export interface ReceivedFrame {
  event: string;
  id: string | undefined;
  data: any;
}

/** Reads frames until the stream ends. @throws when a frame is not whole */
export async function* framesOf(response: Response): AsyncGenerator<ReceivedFrame> {
  let rest = '';
  for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
    rest += piece;
    for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
      const lines = rest.slice(0, end).split('\n');
      rest = rest.slice(end + 2);
      const field = (name: string) =>
        lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      yield { event: field('event') ?? '', id: field('id'), data: JSON.parse(field('data')!) };
    }
  }
  if (rest !== '') throw new Error(`the stream ended inside a frame: ${rest}`);
}

/** Reads a stream as it comes, frame by frame, until somebody has seen enough. */
export interface OpenStream {
  response: Response;
  frames: ReceivedFrame[];
  /** Reads on until a frame of this type has come, the `count`th where it is given. */
  until(type: string, count?: number): Promise<ReceivedFrame>;
  /** Reads to the end. */
  rest(): Promise<ReceivedFrame[]>;
  /** Goes away. */
  leave(): void;
}

/** Opens a stream of events and does not read it yet. */
export async function openStream(
  client: Client,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<OpenStream> {
  const left = new AbortController();
  const response = await client.send(method, path, body, headers, left.signal);
  if (response.status !== 200)
    throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
  const source = framesOf(response);
  const frames: ReceivedFrame[] = [];
  const next = async () => {
    const step = await source.next();
    if (!step.done) frames.push(step.value);
    return step;
  };
  return {
    response,
    frames,
    until: async (type, count = 1) => {
      for (;;) {
        const found = frames.filter(({ event, data }) => data.type === type || event === type)[count - 1];
        if (found) return found;
        if ((await next()).done) throw new Error(`no ${type} in ${JSON.stringify(typesOf(frames))}`);
      }
    },
    rest: async () => {
      while (!(await next()).done);
      return frames;
    },
    leave: () => left.abort(),
  };
}

/** All frames of a stream. */
export async function readAll(response: Response): Promise<ReceivedFrame[]> {
  const frames: ReceivedFrame[] = [];
  for await (const frame of framesOf(response)) frames.push(frame);
  return frames;
}

/** Where a server of one's own listens. */
export function addressOf({ server }: Running): string {
  const { port } = server!.addresses()[0] as AddressInfo;
  return `http://127.0.0.1:${port}`;
}

/** Somebody with a credential at one server. */
export interface Client {
  base: string;
  token: string;
  identity_id: string;
  tenant: string;
  send(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
    signal?: AbortSignal,
  ): Promise<Response>;
  /** A JSON call; throws unless it succeeds. */
  json(method: string, path: string, body?: unknown): Promise<any>;
  /** A run, read to its end. */
  run(body: Record<string, unknown>, headers?: Record<string, string>): Promise<ReceivedFrame[]>;
}

let named = 0;

/** Signs up at a server: a new tenant, or with `admin` another identity of the admin's tenant. */
export async function signUp(base: string, role = 'admin', admin?: Client): Promise<Client> {
  named += 1;
  const reply = await fetch(`${base}/v1/identity/`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(admin ? { authorization: `Bearer ${admin.token}` } : {}),
    },
    body: JSON.stringify({ external_id: `stream-${role}-${named}`, role }),
  });
  if (!reply.ok) throw new Error(`registration answered ${reply.status}: ${await reply.text()}`);
  const { identity, access_token: token } = (await reply.json()) as any;
  return signedIn(base, { token, identity_id: identity.id, tenant: identity.tenant_id });
}

/** The holder of a credential at a server's address. */
export function signedIn(
  base: string,
  { token, identity_id, tenant }: Pick<Client, 'token' | 'identity_id' | 'tenant'>,
): Client {
  const send: Client['send'] = (method, path, body, headers = {}, signal) =>
    fetch(`${base}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    });
  return {
    base,
    token,
    identity_id,
    tenant,
    send,
    json: async (method, path, body) => {
      const answer = await send(method, path, body);
      if (!answer.ok) throw new Error(`${method} ${path} answered ${answer.status}: ${await answer.text()}`);
      return answer.json();
    },
    run: async (body, headers) => {
      const answer = await send('POST', '/v1/run', body, headers);
      if (answer.status !== 200) throw new Error(`the run answered ${answer.status}: ${await answer.text()}`);
      return readAll(answer);
    },
  };
}

/** Makes a corpus of texts that can be searched when this resolves; answers the ids of the documents. */
export async function makeCorpus(
  client: Client,
  id: string,
  texts: Record<string, string>,
): Promise<string[]> {
  await client.json('POST', '/v1/corpora', { id, name: id });
  const ids: string[] = [];
  for (const [name, text] of Object.entries(texts)) {
    const { data } = await client.json('POST', '/v1/documents/text', {
      corpus_id: id,
      text,
      document_id: name,
      filename: `${name}.md`,
    });
    ids.push(data.document_id);
  }
  for (const document of ids) {
    await eventually(`document ${document} to be ready`, async () => {
      const { data } = await client.json('GET', `/v1/documents/${document}`);
      if (data.status === 'failed') throw new Error(`document ${document} failed: ${data.failure_reason}`);
      return data.status === 'succeeded';
    });
  }
  return ids;
}

export const typesOf = (frames: ReceivedFrame[]): string[] =>
  frames.filter(({ event }) => event === 'message').map(({ data }) => data.type);

/** The data of the one event of a type. */
export function eventOf(frames: ReceivedFrame[], type: string): any {
  const found = frames.filter(({ data }) => data.type === type);
  if (found.length !== 1)
    throw new Error(`${found.length} events ${type} in ${JSON.stringify(typesOf(frames))}`);
  return found[0]!.data.data;
}
