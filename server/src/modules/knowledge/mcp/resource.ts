import type { Config } from '#platform/config.ts';
import { tools } from './tools.ts';

export const resourceOf = ({ publicUrl }: Config): string => `${publicUrl}/mcp`;

/** Where clients read how to get a credential (RFC 9728, section 5.1). */
export const challengeOf = ({ publicUrl }: Config): string =>
  `resource_metadata="${publicUrl}/.well-known/oauth-protected-resource/mcp"`;

/** RFC 9728, section 2. There is no authorization server: credentials are made in the tenant, and sent as they are. */
export const resourceMetadata = (config: Config) => ({
  resource: resourceOf(config),
  resource_name: 'Manushya',
  bearer_methods_supported: ['header'],
  scopes_supported: tools.map(({ permission }) => permission),
});
