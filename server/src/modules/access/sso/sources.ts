import type { App } from '#platform/context.ts';
import { sha256 } from '#platform/crypto.ts';
import { ApiError } from '#platform/errors.ts';
import { isSlug } from '#platform/ids.ts';
import { tenantOf } from '../tenants/service.ts';
import { isProviderId, secretOf } from './providers.ts';
import { findOpenProvider, type ProviderRow } from './store.ts';

/** A provider as a sign-in sees it: a tenant's own, or one the operator set up for the installation. */
export interface Source {
  /** As it stands in addresses: `<tenant>.<provider id>`, or `google`. */
  name: string;
  /** First part of the external ids it makes. */
  id: string;
  /** What its states are kept under. */
  shelf: string;
  /** Where people land; undefined: each in a tenant of their own. */
  tenant: string | undefined;
  issuer: string;
  client_id: string;
  client_secret: () => string | undefined;
  scopes: string[];
  default_role: string;
  allowed_email_domains: string[];
  /** Whose new people become identities: everybody's, nobody's, or those with a verified e-mail of a domain. */
  newcomers: 'all' | 'none' | string[];
  role_claim: string | null;
  role_mapping: ProviderRow['role_mapping'];
  /** True for Google itself, whose word on e-mails of foreign domains is worth less. */
  isGoogle: boolean;
}

const google = 'google';
/** No tenant can have this id. */
const googleShelf = '@google';
const googleHost = 'accounts.google.com';

/** Tenant and provider id of a name; ids of providers have no dot, so the last one parts them. */
function partsOf(name: string): { tenant: string; id: string } | undefined {
  const dot = name.lastIndexOf('.');
  const [tenant, id] = [name.slice(0, Math.max(dot, 0)), name.slice(dot + 1)];
  return isSlug(tenant) && isProviderId(id) ? { tenant, id } : undefined;
}

/** What the states of a provider of this name are kept under, whether there is one or not. */
export const shelfOf = (name: string): string | undefined =>
  name === google ? googleShelf : partsOf(name)?.tenant;

export const noSuchProvider = () =>
  new ApiError(404, 'SSO_PROVIDER_NOT_FOUND', 'No sign-in is offered under this name.');

/**
 * The provider with this name, when people may sign in by it now.
 * @throws ApiError 404 SSO_PROVIDER_NOT_FOUND, for unknown tenants and providers and those that are switched off alike
 */
export async function sourceOf(app: App, name: string): Promise<Source> {
  if (name === google) return googleSource(app);
  const parts = partsOf(name);
  const row = parts && (await findOpenProvider(app.database.tenant(parts.tenant), parts.id));
  if (!row) throw noSuchProvider();
  return {
    name,
    id: row.id,
    shelf: row.tenant_id,
    tenant: row.tenant_id,
    issuer: row.issuer,
    client_id: row.client_id,
    client_secret: () => secretOf(app, row),
    scopes: row.scopes,
    default_role: row.default_role,
    allowed_email_domains: row.allowed_email_domains,
    newcomers: row.jit_enabled ? 'all' : 'none',
    role_claim: row.role_claim,
    role_mapping: row.role_mapping,
    isGoogle: new URL(row.issuer).hostname === googleHost,
  };
}

async function googleSource(app: App): Promise<Source> {
  const { GOOGLE_CLIENT_ID, GOOGLE_CLIENT_SECRET, GOOGLE_TENANT_ID, GOOGLE_ALLOWED_DOMAINS, GOOGLE_ISSUER } =
    app.config;
  if (!GOOGLE_CLIENT_ID) throw noSuchProvider();
  if (GOOGLE_TENANT_ID && !(await tenantOf(app, GOOGLE_TENANT_ID))?.is_active) throw noSuchProvider();
  const newcomers = GOOGLE_TENANT_ID
    ? GOOGLE_ALLOWED_DOMAINS.map((domain) => domain.toLowerCase())
    : app.config.openRegistration
      ? 'all'
      : 'none';
  return {
    name: google,
    id: google,
    shelf: googleShelf,
    tenant: GOOGLE_TENANT_ID,
    issuer: GOOGLE_ISSUER,
    client_id: GOOGLE_CLIENT_ID,
    client_secret: () => GOOGLE_CLIENT_SECRET,
    scopes: ['openid', 'email', 'profile'],
    // In a tenant of one's own there is nobody else to be its administrator.
    default_role: GOOGLE_TENANT_ID ? 'user' : 'admin',
    allowed_email_domains: [],
    newcomers,
    role_claim: null,
    role_mapping: [],
    isGoogle: true,
  };
}

/**
 * The tenant of one's own, for people whom no tenant was named for. It follows from who they are, so that it is found
 * again without a list over all tenants.
 */
export const ownTenantOf = (issuer: string, subject: string): string =>
  `ten-${sha256(`${issuer}\n${subject}`).toString('hex').slice(0, 32)}`;
