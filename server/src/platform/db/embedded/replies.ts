/**
 * Backend messages that the bridge composes itself (PostgreSQL documentation, "Message Formats").
 */

/** ReadyForQuery outside a transaction. */
export const READY_IDLE: Uint8Array = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

/** The answer to an SSLRequest or GSSENCRequest: not available. */
export const NO_ENCRYPTION: Uint8Array = Buffer.from('N');

/** The whole answer to a startup message: AuthenticationOk, ParameterStatus…, BackendKeyData, ReadyForQuery. */
export function startupReply(connection: number, parameters: Record<string, string>): Buffer {
  const authenticationOk = message('R', uint32(0));
  const statuses = Object.entries(parameters).map(([name, value]) =>
    message('S', Buffer.from(`${name}\0${value}\0`)),
  );
  // The key is of no use: cancel requests are not served, because the backend cannot be interrupted.
  const backendKeyData = message('K', Buffer.concat([uint32(connection), uint32(0)]));
  return Buffer.concat([authenticationOk, ...statuses, backendKeyData, READY_IDLE]);
}

/** An ErrorResponse; `code` is an SQLSTATE. */
export function errorReply(code: string, text: string, severity: 'ERROR' | 'FATAL' = 'ERROR'): Buffer {
  return message('E', Buffer.from(`S${severity}\0V${severity}\0C${code}\0M${text}\0\0`));
}

function message(type: string, body: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(type), uint32(body.length + 4), body]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value, 0);
  return bytes;
}
