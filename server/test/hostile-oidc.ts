import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  type CryptoKey,
  exportJWK,
  generateKeyPair,
  type JWK,
  type JWTHeaderParameters,
  SignJWT,
} from 'jose';

/** What an endpoint answers. */
export interface Said {
  status?: number;
  headers?: Record<string, string>;
  body?: unknown;
  /** Never answers. */
  hang?: true;
}

/** An OpenID provider that says whatever a test wants of it: what a real one would never say. */
export interface HostileOidc {
  issuer: string;
  metadata: Record<string, unknown>;
  keys: JWK[];
  /** What it answers at the token endpoint. */
  token: (form: URLSearchParams, headers: Record<string, unknown>) => Promise<Said> | Said;
  userinfo: Said;
  /** Answers all requests so, when it is set. */
  always: Said | undefined;
  /** How often each path was asked for. */
  asked: (path: string) => number;
  /** Signs as its one published key would, unless told otherwise. */
  sign: (
    claims: Record<string, unknown>,
    header?: Partial<JWTHeaderParameters>,
    key?: CryptoKey | Uint8Array,
  ) => Promise<string>;
}

/** A host with any number of such providers, each under a path of its own, since what is known of an issuer is kept. */
export interface HostileHost {
  /** For FETCH_ALLOW_HOSTS. */
  host: string;
  fresh: () => HostileOidc;
  stop: () => Promise<void>;
}

export async function openHostileHost(): Promise<HostileHost> {
  const providers = new Map<string, HostileOidc>();
  const counts = new Map<string, number>();
  const http = createServer((request, response) => {
    const { pathname } = new URL(request.url!, 'http://x');
    const [, name = '', path = ''] = /^\/([^/]+)(\/.*)$/.exec(pathname) ?? [];
    const provider = providers.get(name);
    counts.set(pathname, (counts.get(pathname) ?? 0) + 1);
    const send = ({ status = 200, headers = {}, body, hang }: Said) => {
      if (hang) return;
      const text = typeof body === 'string' ? body : JSON.stringify(body ?? {});
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(text);
    };
    const parts: Buffer[] = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', async () => {
      if (!provider) return send({ status: 404 });
      if (provider.always) return send(provider.always);
      if (path === '/.well-known/openid-configuration') return send({ body: provider.metadata });
      if (path === '/jwks') return send({ body: { keys: provider.keys } });
      if (path === '/userinfo') return send(provider.userinfo);
      if (path !== '/token') return send({ status: 404 });
      send(await provider.token(new URLSearchParams(Buffer.concat(parts).toString()), request.headers));
    });
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(http.address() as AddressInfo).port}`;
  const { privateKey, publicKey } = await generateKeyPair('RS256', { extractable: true });
  const published = { ...(await exportJWK(publicKey)), kid: 'one', use: 'sig', alg: 'RS256' };
  return {
    host,
    fresh: () => {
      const name = `p${providers.size + 1}`;
      const issuer = `http://${host}/${name}`;
      const provider: HostileOidc = {
        issuer,
        metadata: {
          issuer,
          authorization_endpoint: `${issuer}/authorize`,
          token_endpoint: `${issuer}/token`,
          jwks_uri: `${issuer}/jwks`,
          userinfo_endpoint: `${issuer}/userinfo`,
          response_types_supported: ['code'],
          subject_types_supported: ['public'],
          id_token_signing_alg_values_supported: ['RS256'],
        },
        keys: [{ ...published }],
        token: () => ({ status: 500 }),
        userinfo: { status: 404 },
        always: undefined,
        asked: (path) => counts.get(`/${name}${path}`) ?? 0,
        sign: (claims, header = {}, key = privateKey) =>
          new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: 'one', ...header }).sign(key),
      };
      providers.set(name, provider);
      return provider;
    },
    stop: () =>
      new Promise((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      }),
  };
}
