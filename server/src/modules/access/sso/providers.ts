import type { App, Ctx } from '#platform/context.ts';
import { decrypt, encrypt } from '#platform/crypto.ts';
import type { SealedColumn } from '#platform/db/reseal.ts';
import { conflict, forbidden, invalid, notFound } from '#platform/errors.ts';
import { fact } from '#platform/facts/record.ts';
import type { PageQuery } from '#platform/http/pages.ts';
import { Answer } from '#platform/http/route.ts';
import { uuidv7 } from '#platform/ids.ts';
import { authorize, isNarrowed, requireNotActing } from '#platform/permission.ts';
import { mayGiveRole, visiblePage } from '../policy/service.ts';
import type {
  IdentityProvider,
  IdentityProviderCreate,
  IdentityProviderSecret,
  IdentityProviderUpdate,
} from './schema.ts';
import {
  deleteProvider,
  findProvider,
  insertProvider,
  listProviders,
  lockProvider,
  type ProviderRow,
  updateProvider,
} from './store.ts';

// Neither a dot, which parts it from the tenant in addresses, nor an underscore, which parts it from the subject in
// external ids: `okta` and subject `b_1` must not meet `okta_b` and subject `1`.
const idForm = /^[a-z0-9][a-z0-9-]{0,62}$/;
export const isProviderId = (id: string): boolean => idForm.test(id);

const domainForm = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** The address where a sign-in by a provider begins, and the one where it comes back. */
export const addressesOf = ({ config }: App, name: string) => ({
  login_url: `${config.publicUrl}/v1/sso/login/${name}`,
  redirect_uri: `${config.publicUrl}/v1/sso/callback/${name}`,
});

function shown(app: App, { client_secret, ...row }: ProviderRow): IdentityProvider {
  return {
    ...row,
    type: 'oidc',
    has_client_secret: client_secret !== null,
    scopes_json: row.scopes,
    // The first entry of a value counts.
    role_mapping_json: Object.fromEntries(row.role_mapping.map(({ value, role }) => [value, role]).reverse()),
    ...addressesOf(app, `${row.tenant_id}.${row.id}`),
  };
}

const boundTo = (tenant: string, id: string) => `identity provider ${tenant} ${id}`;

export const sealedClientSecrets: SealedColumn = {
  table: 'identity_providers',
  column: 'client_secret',
  key: { tenant_id: 'text', id: 'text' },
  context: ({ tenant_id, id }) => boundTo(tenant_id, id),
};

/** The secret of a stored provider in the clear. */
export const secretOf = (app: App, { tenant_id, id, client_secret }: ProviderRow): string | undefined =>
  client_secret ? decrypt(app.keys.encryption, client_secret, boundTo(tenant_id, id)).toString() : undefined;

const sealedSecret = (ctx: Ctx, id: string, secret: string | null | undefined): Buffer | null =>
  secret ? encrypt(ctx.app.keys.encryption, secret, boundTo(ctx.tenant, id)) : null;

/**
 * Whoever says which provider is believed can sign in as anybody of the tenant, free of any scope.
 * @throws ApiError 403
 */
function requireFullPower({ actor }: Ctx): void {
  requireNotActing(actor);
  if (isNarrowed(actor) || !mayGiveRole(actor, 'admin'))
    throw forbidden(
      'AUTH_FORBIDDEN',
      'Only an unlimited credential of an administrator may configure providers.',
    );
}

/**
 * An issuer as OpenID Connect Discovery 1.0, section 3, has it: https, without query and fragment. Plain http only for
 * hosts the operator allows.
 */
function checkIssuer({ outside }: App, issuer: string): void {
  const url = URL.canParse(issuer) ? new URL(issuer) : undefined;
  const plain = url?.protocol === 'http:' && outside.allows(url);
  const whole = url && !url.username && !url.password && !/[?#\s]/.test(issuer);
  if (!whole || (url.protocol !== 'https:' && !plain))
    throw invalid([{ path: '/issuer', message: 'must be an https address without query and fragment' }]);
}

function checkRoles(ctx: Ctx, { default_role, role_mapping }: ProviderRow): void {
  for (const role of [default_role, ...role_mapping.map(({ role }) => role)])
    if (!mayGiveRole(ctx.actor, role))
      throw forbidden('AUTH_FORBIDDEN', 'A provider may not give a role above your own.');
}

function domainsOf(domains: string[]): string[] {
  return domains.map((domain, i) => {
    const lower = domain.toLowerCase();
    if (!domainForm.test(lower))
      throw invalid([
        { path: `/allowed_email_domains/${i}`, message: 'must be a domain such as example.com' },
      ]);
    return lower;
  });
}

/** `openid` makes it OpenID Connect, so it is always asked for. */
const scopesOf = (scopes: string[]): string[] => [...new Set(['openid', ...scopes])];

/**
 * The fields a provider is stored by, from those of NexusRAG as well.
 * @throws ApiError 422
 */
function inOwnWords<Input extends IdentityProviderUpdate>(input: Input) {
  const { type, client_secret_ref, auth_url, token_url, jwks_url, scopes_json, role_mapping_json, ...own } =
    input;
  if (type === 'saml')
    throw invalid([{ path: '/type', message: 'must be oidc: sign-in by SAML is not offered' }]);
  const twice = [
    ...(own.scopes && scopes_json ? ['scopes'] : []),
    ...(own.role_mapping && role_mapping_json ? ['role_mapping'] : []),
  ];
  if (twice.length > 0)
    throw invalid(
      twice.map((name) => ({ path: `/${name}_json`, message: `must not be given together with ${name}` })),
    );
  return {
    ...own,
    ...(scopes_json && { scopes: scopes_json }),
    ...(role_mapping_json && {
      role_claim: own.role_claim === undefined ? 'groups' : own.role_claim,
      role_mapping: Object.entries(role_mapping_json).map(([value, role]) => ({ value, role })),
    }),
  };
}

/** What a fact says of a provider. */
const described = ({ name, issuer, client_id, default_role, jit_enabled, enabled, ...row }: ProviderRow) => ({
  name,
  issuer,
  client_id,
  default_role,
  jit_enabled,
  enabled,
  scopes: row.scopes,
  allowed_email_domains: row.allowed_email_domains,
  role_claim: row.role_claim,
  role_mapping: row.role_mapping,
});

/** @throws ApiError 403, 409 IDENTITY_PROVIDER_EXISTS, 422 */
export async function createProvider(ctx: Ctx, body: IdentityProviderCreate): Promise<IdentityProvider> {
  requireFullPower(ctx);
  const { id = uuidv7(), ...input } = inOwnWords(body);
  if (!isProviderId(id))
    throw invalid([
      { path: '/id', message: 'must be 1 to 63 of a-z 0-9 - and begin with a letter or digit' },
    ]);
  checkIssuer(ctx.app, input.issuer);
  const now = new Date().toISOString();
  const row: ProviderRow = {
    tenant_id: ctx.tenant,
    id,
    name: input.name,
    issuer: input.issuer,
    client_id: input.client_id,
    client_secret: sealedSecret(ctx, id, input.client_secret),
    scopes: scopesOf(input.scopes ?? ['email', 'profile']),
    default_role: input.default_role ?? 'user',
    allowed_email_domains: domainsOf(input.allowed_email_domains ?? []),
    jit_enabled: input.jit_enabled ?? false,
    role_claim: input.role_claim ?? null,
    role_mapping: input.role_mapping ?? [],
    enabled: input.enabled ?? true,
    created_at: now,
    updated_at: now,
  };
  checkRoles(ctx, row);
  await authorize(ctx, 'identity_providers:create', { id: row.id });
  return ctx.db.transaction(async (tx) => {
    const [made] = await tx.rows(insertProvider(row));
    if (!made)
      throw conflict(
        'IDENTITY_PROVIDER_EXISTS',
        'An identity provider with this id exists. Choose another id.',
      );
    await tx.run(
      fact(ctx, {
        type: 'identity_provider.created',
        resource_type: 'identity_provider',
        resource_id: row.id,
        after: described(row),
      }),
    );
    return shown(ctx.app, made);
  });
}

async function providerFor(
  ctx: Ctx,
  permission: `identity_providers:${string}`,
  id: string,
): Promise<ProviderRow> {
  const found = isProviderId(id) ? await findProvider(ctx.db, id) : undefined;
  if (!found) throw notFound('Identity provider');
  await authorize(ctx, permission, { id });
  return found;
}

/** @throws ApiError 404 */
export const getProvider = async (ctx: Ctx, id: string): Promise<IdentityProvider> =>
  shown(ctx.app, await providerFor(ctx, 'identity_providers:read', id));

/** Changes what is given and nothing else; sign-ins under way end when issuer or client changed. @throws ApiError 403, 404, 422 */
export async function changeProvider(
  ctx: Ctx,
  id: string,
  body: IdentityProviderUpdate,
): Promise<IdentityProvider> {
  const { client_secret, ...input } = inOwnWords(body);
  await providerFor(ctx, 'identity_providers:update', id);
  requireFullPower(ctx);
  if (input.issuer !== undefined) checkIssuer(ctx.app, input.issuer);
  return ctx.db.transaction(async (tx) => {
    const [before] = await tx.rows(lockProvider(ctx.tenant, id));
    if (!before) throw notFound('Identity provider');
    // The secret goes to whoever the issuer says: another issuer must not be given what was meant for the first.
    if (client_secret === undefined && before.client_secret && input.issuer && input.issuer !== before.issuer)
      throw invalid([{ path: '/client_secret', message: 'must be given together with another issuer' }]);
    const row: ProviderRow = {
      ...before,
      ...input,
      scopes: input.scopes ? scopesOf(input.scopes) : before.scopes,
      allowed_email_domains: input.allowed_email_domains
        ? domainsOf(input.allowed_email_domains)
        : before.allowed_email_domains,
      client_secret:
        client_secret === undefined ? before.client_secret : sealedSecret(ctx, id, client_secret),
      updated_at: new Date().toISOString(),
    };
    checkRoles(ctx, row);
    const [changed] = await tx.rows(updateProvider(row));
    await tx.run(
      fact(ctx, {
        type: 'identity_provider.updated',
        resource_type: 'identity_provider',
        resource_id: id,
        before: described(before),
        after: described(row),
        data: { client_secret_changed: client_secret !== undefined },
      }),
    );
    return shown(ctx.app, changed!);
  });
}

/**
 * Gives a provider another client secret. A reference to one is not resolved, so that alone is refused instead of believed.
 * @throws ApiError 403, 404, 422
 */
export async function changeSecret(
  ctx: Ctx,
  id: string,
  { client_secret }: IdentityProviderSecret,
): Promise<IdentityProvider> {
  await providerFor(ctx, 'identity_providers:update', id);
  if (client_secret === undefined)
    throw invalid([
      { path: '/client_secret', message: 'is required: a reference to a secret is not resolved here' },
    ]);
  return changeProvider(ctx, id, { client_secret });
}

/** Nobody signs in by it any more; identities and sessions stay. @throws ApiError 404 */
export async function removeProvider(ctx: Ctx, id: string): Promise<void> {
  const before = await providerFor(ctx, 'identity_providers:delete', id);
  await ctx.db.transaction(async (tx) => {
    const [gone] = await tx.rows(deleteProvider(ctx.tenant, id));
    if (!gone) throw notFound('Identity provider');
    await tx.run(
      fact(ctx, {
        type: 'identity_provider.deleted',
        resource_type: 'identity_provider',
        resource_id: id,
        before: described(before),
      }),
    );
  });
}

/** Providers of the tenant, newest first. */
export async function listVisibleProviders(ctx: Ctx, query: PageQuery): Promise<Answer> {
  const { status, body, headers } = await visiblePage(ctx, 'identity_providers:list', {}, query, {
    rows: async (from) => (await listProviders(ctx.db, from)).map((row) => shown(ctx.app, row)),
    owned: false,
    target: ({ id }) => ({ id }),
    position: (row) => [row.created_at, row.id],
    size: 25,
  });
  return new Answer(status, { items: body }, headers);
}
