// Servers on loopback that speak as Amazon Bedrock and Vertex AI Search do, check what they are asked, and fail on command.
import { createHash, createHmac, generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jwtVerify } from 'jose';

/** One call as it came, and what was wrong with its signature or token, if anything. */
export interface EngineCall {
  path: string;
  body: any;
  headers: IncomingMessage['headers'];
  refused: string | undefined;
}

/** Answers a call whose credentials are good. */
export type EngineScript = (response: ServerResponse, call: EngineCall) => void | Promise<void>;

export const json =
  (status: number, body: unknown, headers: Record<string, string> = {}): EngineScript =>
  (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
  };

async function engineServer(
  check: (request: IncomingMessage, body: string) => Promise<string | undefined> | string | undefined,
  refuse: EngineScript,
) {
  const calls: EngineCall[] = [];
  let script: EngineScript = json(200, {});
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const refused = await check(request, text);
    const { url: path = '', headers } = request;
    const call = { path, body: JSON.parse(text || 'null'), headers, refused };
    calls.push(call);
    await (refused ? refuse : script)(response, call);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    answerWith: (next: EngineScript) => {
      script = next;
    },
    close: () => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** An error of AWS's REST-JSON protocol. */
export const awsError = (status: number, type: string): EngineScript =>
  json(status, { message: `${type} of the tests` }, { 'x-amzn-errortype': type });

export const awsKey = { AWS_ACCESS_KEY_ID: 'AKIDOFTHETESTS', AWS_SECRET_ACCESS_KEY: 'secret of the tests' };

export const startBedrock = () => engineServer(signatureProblem, awsError(403, 'InvalidSignatureException'));

const hashed = (text: string) => createHash('sha256').update(text).digest('hex');
const keyed = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();

/** What is wrong with a Signature Version 4, computed anew from what came (AWS General Reference, Signing AWS API requests). */
function signatureProblem({ method, url, headers }: IncomingMessage, body: string): string | undefined {
  const form =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/;
  const [, id, day, region, service, signed, signature] = form.exec(headers.authorization ?? '') ?? [];
  if (!signature) return `no signature in ${headers.authorization}`;
  if (id !== awsKey.AWS_ACCESS_KEY_ID || service !== 'bedrock') return `signed by ${id} for ${service}`;
  const names = signed!.split(';');
  for (const needed of ['host', 'x-amz-date']) if (!names.includes(needed)) return `${needed} is not signed`;
  const canonical = [
    method,
    new URL(url!, 'http://x').pathname,
    '',
    ...names.map((name) => `${name}:${String(headers[name]).trim()}`),
    '',
    signed,
    hashed(body),
  ].join('\n');
  const date = String(headers['x-amz-date']);
  const scope = `${day}/${region}/${service}/aws4_request`;
  const text = ['AWS4-HMAC-SHA256', date, scope, hashed(canonical)].join('\n');
  const key = [day!, region!, service, 'aws4_request'].reduce<string | Buffer>(
    keyed,
    `AWS4${awsKey.AWS_SECRET_ACCESS_KEY}`,
  );
  const wanted = keyed(key, text).toString('hex');
  return wanted === signature && date.startsWith(day!) ? undefined : 'the signature does not fit';
}

/** An error as Google's APIs tell it (AIP-193). */
export const googleError = (code: number, status: string, message = `${status} of the tests`): EngineScript =>
  json(code, { error: { code, status, message } });

/** A service account and a Vertex AI Search that knows its key. */
export async function startVertex() {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const account = {
    type: 'service_account',
    project_id: 'tests',
    private_key_id: 'k1',
    private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    client_email: 'searcher@tests.iam.gserviceaccount.com',
    client_id: '1',
    token_uri: 'http://127.0.0.1:9/token',
  };
  const file = join(mkdtempSync(join(tmpdir(), 'manushya-account-')), 'account.json');
  writeFileSync(file, JSON.stringify(account));
  const check = async ({ headers }: IncomingMessage) => {
    try {
      const token = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '';
      const { payload } = await jwtVerify(token, publicKey, { issuer: account.client_email });
      const { scope } = payload as { scope?: string };
      return scope?.includes('cloud-platform') ? undefined : `a token for ${scope}`;
    } catch (error) {
      return String(error);
    }
  };
  const server = await engineServer(check, googleError(401, 'UNAUTHENTICATED'));
  return { ...server, credentials: file };
}
