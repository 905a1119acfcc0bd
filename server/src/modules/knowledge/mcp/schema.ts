import { Type as T } from 'typebox';

/**
 * One message: what is wrong with it, the transport says. Lists of them, which only the revision of March 2025 knows, are
 * refused: one that cancels its own neighbour would wait for ever.
 */
export const JsonRpc = T.Object({}, { description: 'A message of JSON-RPC 2.0' });

/** RFC 9728, section 2. */
export const ProtectedResource = T.Object({
  resource: T.String(),
  resource_name: T.String(),
  bearer_methods_supported: T.Array(T.String()),
  scopes_supported: T.Array(T.String()),
});
