import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair } from 'jose';
import { type ClientMetadata, Provider } from 'oidc-provider';

/** An OpenID provider on loopback, the real one, whose people sign in by being named. */
export interface OidcServer {
  issuer: string;
  /** Host and port, for FETCH_ALLOW_HOSTS. */
  host: string;
  /** Makes a client known. */
  register: (client: ClientMetadata) => void;
  /** What the provider says of somebody. */
  people: Map<string, Record<string, unknown>>;
  /** Who sits at the browser; undefined: somebody who does not want to. */
  user: string | undefined;
  /** How often each path was asked for. */
  asked: Map<string, number>;
  /** Answers every request with this status instead. */
  broken: number | undefined;
  stop: () => Promise<void>;
}

/** @param claimsInIdToken false: e-mail and name are told by userinfo only, as the standard has it */
export async function openOidcServer(claimsInIdToken = true): Promise<OidcServer> {
  let answer: (request: IncomingMessage, response: ServerResponse) => void = () => {};
  const http = createServer((request, response) => answer(request, response));
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(http.address() as AddressInfo).port}`;
  const clients = new Map<string, ClientMetadata>();
  const self: OidcServer = {
    issuer: `http://${host}`,
    host,
    register: (client) => void clients.set(client.client_id, client),
    people: new Map(),
    user: undefined,
    asked: new Map(),
    broken: undefined,
    stop: () =>
      new Promise((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      }),
  };
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  const provider = new Provider(self.issuer, {
    jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: 'one', use: 'sig', alg: 'RS256' } as never] },
    cookies: { keys: ['a key of the tests'] },
    conformIdTokenClaims: !claimsInIdToken,
    claims: { openid: ['sub', 'groups'], email: ['email', 'email_verified', 'hd'], profile: ['name'] },
    pkce: { required: () => true },
    ttl: { AccessToken: 600, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_context, { uid }) => `/interaction/${uid}` },
    findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id, ...self.people.get(id) }) }),
    adapter: adapterOf(clients),
  });
  const handle = provider.callback();
  answer = (request, response) => {
    const path = new URL(request.url!, self.issuer).pathname;
    self.asked.set(path, (self.asked.get(path) ?? 0) + 1);
    if (self.broken) response.writeHead(self.broken).end();
    else if (path.startsWith('/interaction/'))
      interact(provider, self, request, response).catch((error) =>
        response.writeHead(500).end(String(error)),
      );
    else handle(request, response);
  };
  return self;
}

/** Signs in and consents without a page. */
async function interact(
  provider: Provider,
  { user }: OidcServer,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  if (user === undefined) {
    const refusal = { error: 'access_denied', error_description: '<b>I do not want to</b>' };
    return provider.interactionFinished(request, response, refusal);
  }
  if (prompt.name === 'login')
    return provider.interactionFinished(request, response, { login: { accountId: user } });
  const grant =
    (grantId && (await provider.Grant.find(grantId))) ||
    new provider.Grant({ accountId: session!.accountId, clientId: String(params.client_id) });
  grant.addOIDCScope(String(params.scope));
  const consent = { consent: { grantId: await grant.save() } };
  return provider.interactionFinished(request, response, consent, { mergeWithLastSubmission: true });
}

/** Keeps all in memory; clients come from a map, so that they can be made known later. */
function adapterOf(clients: Map<string, ClientMetadata>) {
  const kept = new Map<string, any>();
  return class Adapter {
    private readonly model: string;
    constructor(model: string) {
      this.model = model;
    }
    private key(id: string): string {
      return `${this.model}:${id}`;
    }
    async upsert(id: string, payload: any): Promise<void> {
      kept.set(this.key(id), payload);
      if (payload.uid) kept.set(`${this.model}:uid:${payload.uid}`, id);
    }
    async find(id: string): Promise<any> {
      return this.model === 'Client' ? clients.get(id) : kept.get(this.key(id));
    }
    async findByUid(uid: string): Promise<any> {
      return this.find(kept.get(`${this.model}:uid:${uid}`));
    }
    async findByUserCode(): Promise<undefined> {
      return undefined;
    }
    async consume(id: string): Promise<void> {
      const payload = kept.get(this.key(id));
      if (payload) payload.consumed = Math.floor(Date.now() / 1000);
    }
    async destroy(id: string): Promise<void> {
      kept.delete(this.key(id));
    }
    async revokeByGrantId(grantId: string): Promise<void> {
      for (const [key, payload] of kept) if (payload?.grantId === grantId) kept.delete(key);
    }
  };
}
