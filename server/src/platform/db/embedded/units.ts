import { createHash } from 'node:crypto';
import { ENDS_READY, MAY_SET_SESSION } from './messages.ts';

/** A run of frontend messages that the backend executes without a break, as parts to be written in order. */
export interface Unit {
  flags: number;
  length: number;
  parts: Uint8Array[];
}

export interface UnitReader {
  /** Takes bytes as the client wrote them; whole units leave through the handlers. */
  write(chunk: Buffer): void;
  /** Names, as the backend knows them, of the prepared statements this connection may have left there. */
  statements(): string[];
}

export interface UnitHandlers {
  onStartup(parameters: Map<string, string>): void;
  onEncryptionRequest(): void;
  onUnit(unit: Unit): void;
  /** The client sent something this bridge does not serve; the connection cannot go on. */
  onRefused(reason: string): void;
}

const PROTOCOL_3 = 196_608;
const SSL_REQUEST = 80_877_103;
const GSSENC_REQUEST = 80_877_104;

// Longer names are cut by PostgreSQL (NAMEDATALEN), and two cut names can be one.
const NAME_BYTES = 63;

// There is one backend: these would destroy the prepared statements of every other connection.
const DISCARDS_ALL = /^\s*(deallocate\s+(prepare\s+)?all|discard\s+all)\b/i;
const SETS_SESSION =
  /(^|;)\s*(reset\b|set\s+(?!local\b|constraints\b|transaction\b))|set_config\s*\((?![^)]*,\s*true\s*\))|^\s*(do|call)\b/i;
const REFUSAL =
  "do $$begin raise feature_not_supported using message = 'The embedded database has one backend for all connections: DISCARD ALL and DEALLOCATE ALL are not available';end$$";

/**
 * Splits what one client writes into units that end with Sync, Query, FunctionCall or Flush, and gives the
 * client's statements and portals names of their own within the one backend.
 */
export function createUnitReader(connection: number, handlers: UnitHandlers): UnitReader {
  const prefix = Buffer.from(`${connection.toString(36)}.`);
  const prepared = new Set<string>();
  const settingStatements = new Set<string>();
  let rest: Buffer | undefined;
  let started = false;
  let unit: Unit = { flags: 0, length: 0, parts: [] };

  function add(part: Uint8Array): void {
    unit.parts.push(part);
    unit.length += part.length;
  }

  function finish(flags: number): void {
    unit.flags |= flags;
    const whole = unit;
    unit = { flags: 0, length: 0, parts: [] };
    handlers.onUnit(whole);
  }

  function named(name: Uint8Array): Uint8Array {
    if (name.length === 0) return name;
    if (prefix.length + name.length <= NAME_BYTES) return Buffer.concat([prefix, name]);
    return Buffer.concat([prefix, Buffer.from(createHash('sha1').update(name).digest('hex'))]);
  }

  /** A message again, with the bytes from `start` to `end` of it replaced. */
  function addReplaced(message: Buffer, start: number, end: number, replacement: Uint8Array): void {
    const head = Buffer.allocUnsafe(start + replacement.length);
    message.copy(head, 0, 0, start);
    head.set(replacement, start);
    head.writeUInt32BE(message.length - 1 + replacement.length - (end - start), 1);
    add(head);
    if (end < message.length) add(message.subarray(end));
  }

  function noteText(text: Buffer, statement: string): boolean {
    if (DISCARDS_ALL.test(text.toString('latin1', 0, 200))) return false;
    settingStatements.delete(statement);
    if (!SETS_SESSION.test(text.toString('latin1'))) return true;
    unit.flags |= MAY_SET_SESSION;
    if (statement !== '') settingStatements.add(statement);
    return true;
  }

  function addParse(message: Buffer): void {
    const end = message.indexOf(0, 5);
    const name = message.subarray(5, end);
    const statement = name.toString('latin1');
    const textEnd = message.indexOf(0, end + 1);
    if (statement !== '') prepared.add(statement);
    if (!noteText(message.subarray(end + 1, textEnd), statement)) {
      addReplaced(message, 5, textEnd, Buffer.concat([named(name), Buffer.from(`\0${REFUSAL}`)]));
    } else if (statement === '') {
      add(message);
    } else {
      addReplaced(message, 5, end, named(name));
    }
  }

  function addBind(message: Buffer): void {
    const portalEnd = message.indexOf(0, 5);
    const end = message.indexOf(0, portalEnd + 1);
    if (end === 6) {
      add(message);
      return;
    }
    const portal = message.subarray(5, portalEnd);
    const name = message.subarray(portalEnd + 1, end);
    if (settingStatements.size > 0 && settingStatements.has(name.toString('latin1'))) {
      unit.flags |= MAY_SET_SESSION;
    }
    if (portal.length === 0) addReplaced(message, 6, end, named(name));
    else addReplaced(message, 5, end, Buffer.concat([named(portal), Buffer.of(0), named(name)]));
  }

  /** Describe and Close: a kind ('S' or 'P'), then a name. */
  function addByName(message: Buffer, closing: boolean): void {
    const end = message.indexOf(0, 6);
    if (end === 6) {
      add(message);
      return;
    }
    const name = message.subarray(6, end);
    if (closing && message[5] === 0x53) prepared.delete(name.toString('latin1'));
    addReplaced(message, 6, end, named(name));
  }

  function addExecute(message: Buffer): void {
    const end = message.indexOf(0, 5);
    if (end === 5) add(message);
    else addReplaced(message, 5, end, named(message.subarray(5, end)));
  }

  function addQuery(message: Buffer): void {
    if (noteText(message.subarray(5, message.length - 1), '')) add(message);
    else addReplaced(message, 5, message.length - 1, Buffer.from(REFUSAL));
    finish(ENDS_READY);
  }

  function take(message: Buffer): void {
    switch (message[0]) {
      case 0x50: // 'P' Parse
        addParse(message);
        break;
      case 0x42: // 'B' Bind
        addBind(message);
        break;
      case 0x44: // 'D' Describe
        addByName(message, false);
        break;
      case 0x43: // 'C' Close
        addByName(message, true);
        break;
      case 0x45: // 'E' Execute
        addExecute(message);
        break;
      case 0x51: // 'Q' Query
        addQuery(message);
        break;
      case 0x53: // 'S' Sync
      case 0x46: // 'F' FunctionCall
        add(message);
        finish(ENDS_READY);
        break;
      case 0x48: // 'H' Flush
        add(message);
        finish(0);
        break;
      case 0x64: // 'd' CopyData
      case 0x63: // 'c' CopyDone
      case 0x66: // 'f' CopyFail: COPY FROM STDIN was already refused when these arrive
      case 0x58: // 'X' Terminate: the end of the stream follows
        break;
      default:
        handlers.onRefused(`unexpected message type 0x${message[0]!.toString(16)}`);
    }
  }

  function start(message: Buffer): void {
    const code = message.readUInt32BE(4);
    if (code === SSL_REQUEST || code === GSSENC_REQUEST) {
      handlers.onEncryptionRequest();
      return;
    }
    if (code !== PROTOCOL_3) {
      handlers.onRefused(`unsupported startup code ${code} (cancel requests are not served)`);
      return;
    }
    started = true;
    const fields = message.subarray(8).toString('utf8').split('\0');
    const parameters = new Map<string, string>();
    for (let i = 0; i + 1 < fields.length && fields[i] !== ''; i += 2) {
      parameters.set(fields[i]!, fields[i + 1]!);
    }
    handlers.onStartup(parameters);
  }

  function write(chunk: Buffer): void {
    const bytes = rest ? Buffer.concat([rest, chunk]) : chunk;
    let at = 0;
    for (;;) {
      const header = started ? 5 : 4;
      if (at + header > bytes.length) break;
      const end = at + bytes.readUInt32BE(at + header - 4) + header - 4;
      if (end > bytes.length) break;
      const message = bytes.subarray(at, end);
      if (started) take(message);
      else start(message);
      at = end;
    }
    rest = at < bytes.length ? bytes.subarray(at) : undefined;
  }

  return {
    write,
    statements: () =>
      Array.from(prepared, (name) => Buffer.from(named(Buffer.from(name, 'latin1'))).toString('latin1')),
  };
}
