import { Type as T } from 'typebox';

const Message = T.Object({}, { description: 'A message of JSON-RPC 2.0' });

/** A message, or several as of revision 2025-03-26; the transport says what is wrong with one. */
export const JsonRpc = T.Union([Message, T.Array(Message, { minItems: 1, maxItems: 20 })]);

/** RFC 9728, section 2. */
export const ProtectedResource = T.Object({
  resource: T.String(),
  resource_name: T.String(),
  bearer_methods_supported: T.Array(T.String()),
  scopes_supported: T.Array(T.String()),
});
