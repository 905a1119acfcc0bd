import type { Engine } from './engine.ts';
import { ENDS_READY, MAY_SET_SESSION } from './messages.ts';
import type { Outbox } from './outbox.ts';
import { errorReply, READY_IDLE } from './replies.ts';

/** One backend shared by many connections, in the worker thread. */
export interface Backend {
  open(connection: number, role: string | undefined): void;
  /** Takes a unit of frontend messages; `drain` runs it. */
  enqueue(connection: number, flags: number, bytes: Uint8Array): void;
  /** Forgets a connection: its waiting units, its open transaction, its prepared statements. */
  end(connection: number, statements: string[]): void;
  /** Runs all units that may run now, in order of arrival. */
  drain(): void;
}

interface Connection {
  id: number;
  role: string | undefined;
  waiting: Unit[];
}

interface Unit {
  connection: Connection;
  flags: number;
  bytes: Uint8Array;
  queuedAt: number;
  done: boolean;
}

// Answers that wait longer than this leave before the queue is empty: the main thread works meanwhile.
const FLUSH_AFTER_MS = 0.25;

// Under steady load the queue is never empty: what was run is cut off in strides.
const QUEUE_COMPACT_FROM = 256;

const SYNC = Buffer.from([0x53, 0, 0, 0, 4]);
const IDLE = 0x49;

/**
 * Units run in order of arrival, each without a break. While a connection's transaction is open (ReadyForQuery
 * says T or E, or a Flush left the unit open) only its own units run; the others wait, at most `ownerWaitMs`.
 */
export function createBackend(engine: Engine, outbox: Outbox, ownerWaitMs: number): Backend {
  const connections = new Map<number, Connection>();
  const roleOids = new Map<string, number>();
  const endedStatements: string[] = [];
  let queue: Unit[] = [];
  let queueAt = 0;
  let owner: Connection | undefined;
  /** The connection whose role and settings the session has; undefined when they are not known. */
  let current: Connection | undefined;
  let settingsTouched = false;
  let guard: NodeJS.Timeout | undefined;
  let lastByte = 0;

  function toOutbox(bytes: Uint8Array): void {
    lastByte = bytes[bytes.length - 1]!;
    outbox.write(bytes);
  }

  function open(id: number, role: string | undefined): void {
    connections.set(id, { id, role, waiting: [] });
  }

  function enqueue(id: number, flags: number, bytes: Uint8Array): void {
    const connection = connections.get(id);
    if (!connection) return;
    const unit = { connection, flags, bytes, queuedAt: performance.now(), done: false };
    connection.waiting.push(unit);
    queue.push(unit);
  }

  function takeNext(): Unit | undefined {
    let unit: Unit | undefined;
    if (owner) {
      unit = owner.waiting[0];
    } else {
      unit = queueHead();
    }
    if (!unit) {
      if (!owner) resetQueue();
      return undefined;
    }
    unit.done = true;
    unit.connection.waiting.shift();
    return unit;
  }

  function queueHead(): Unit | undefined {
    while (queueAt < queue.length && queue[queueAt]!.done) queueAt++;
    if (queueAt > QUEUE_COMPACT_FROM && queueAt > queue.length / 2) {
      queue = queue.slice(queueAt);
      queueAt = 0;
    }
    return queue[queueAt];
  }

  function resetQueue(): void {
    if (queue.length > 0) queue = [];
    queueAt = 0;
  }

  function drain(): void {
    if (!owner) closeEndedStatements();
    let startedAt = performance.now();
    for (let unit = takeNext(); unit; unit = takeNext()) {
      outbox.begin(unit.connection.id);
      runUnit(unit);
      outbox.end();
      const now = performance.now();
      if (now - startedAt < FLUSH_AFTER_MS) continue;
      outbox.flush();
      startedAt = now;
    }
    outbox.flush();
    watchQueue();
  }

  function runUnit(unit: Unit): void {
    const { connection, flags } = unit;
    if (connection !== owner && !enterSession(connection)) return;
    if (flags & MAY_SET_SESSION) settingsTouched = true;
    engine.run(unit.bytes, toOutbox);
    owner = flags & ENDS_READY && lastByte === IDLE ? undefined : connection;
    if (!owner) closeEndedStatements();
  }

  /**
   * Gives the session the role of the connection, and clean settings when another connection may have changed
   * them. The role is compared with the one the backend really has: a SET ROLE sent by a client, or a rollback
   * of one, cannot deceive it. Runs only between transactions, so no rollback can take it back.
   */
  function enterSession(connection: Connection): boolean {
    if (current === connection) return true;
    const statements: string[] = [];
    if (settingsTouched) statements.push('RESET ALL');
    if (!hasRole(connection.role)) statements.push(switchStatement(engine.owner, connection.role));
    if (statements.length > 0) {
      const answer = runQuery(statements.join(';'));
      if (answer[0] === 0x45) {
        current = undefined;
        outbox.write(answer);
        return false;
      }
      settingsTouched = false;
      roleOids.set(roleKey(connection.role), engine.currentRoleOid());
    }
    current = connection;
    return true;
  }

  function hasRole(role: string | undefined): boolean {
    return roleOids.get(roleKey(role)) === engine.currentRoleOid();
  }

  /** Runs a simple query and returns its answer, which begins with 'E' when the first statement failed. */
  function runQuery(text: string): Buffer {
    const parts: Buffer[] = [];
    engine.run(queryMessage(text), (bytes) => parts.push(Buffer.from(bytes)));
    return skipCompletions(Buffer.concat(parts));
  }

  function end(id: number, statements: string[]): void {
    const connection = connections.get(id);
    if (!connection) return;
    connections.delete(id);
    for (const unit of connection.waiting) unit.done = true;
    connection.waiting = [];
    endedStatements.push(...statements);
    if (owner === connection) {
      engine.run(Buffer.concat([SYNC, queryMessage('ROLLBACK')]), () => {});
      owner = undefined;
    }
    if (current === connection) current = undefined;
  }

  /** Close needs a Sync, and a Sync would end a transaction that a Flush has left open: only between transactions. */
  function closeEndedStatements(): void {
    if (endedStatements.length === 0) return;
    const closes = endedStatements.map((name) => Buffer.from(`C....S${name}\0`, 'latin1'));
    for (const message of closes) message.writeUInt32BE(message.length - 1, 1);
    endedStatements.length = 0;
    engine.run(Buffer.concat([...closes, SYNC]), () => {});
  }

  /** While a transaction is open, makes sure that those who wait for it do not wait for ever. */
  function watchQueue(): void {
    clearTimeout(guard);
    guard = undefined;
    if (!owner) return;
    const head = queueHead();
    if (!head) {
      resetQueue();
      return;
    }
    const waitMs = head.queuedAt + ownerWaitMs - performance.now();
    guard = setTimeout(failLongWaiters, Math.max(0, waitMs) + 1);
  }

  function failLongWaiters(): void {
    const before = performance.now() - ownerWaitMs;
    for (const unit of queue.slice(queueAt)) {
      if (unit.queuedAt > before) break;
      if (!unit.done && unit.connection !== owner) failWaiting(unit.connection);
    }
    outbox.flush();
    watchQueue();
  }

  // All units of the connection, not only the oldest: the statements sent behind a BEGIN that failed must not run
  // outside the transaction they were meant for.
  function failWaiting(connection: Connection): void {
    const error = errorReply(
      '55P03',
      `waited more than ${ownerWaitMs} ms for the embedded database: another connection's transaction is open. ` +
        'Either the pool was used inside an open transaction, or one transaction was held too long',
    );
    for (const unit of connection.waiting) {
      unit.done = true;
      outbox.begin(connection.id);
      outbox.write(error);
      if (unit.flags & ENDS_READY) outbox.write(READY_IDLE);
      outbox.end();
    }
    connection.waiting = [];
  }

  return { open, enqueue, end, drain };
}

function roleKey(role: string | undefined): string {
  return role === undefined ? 'owner' : `role ${role}`;
}

/** Undoes a client's SET SESSION AUTHORIZATION as well; RESET would not, a standalone backend has no value to go back to. */
function switchStatement(owner: string, role: string | undefined): string {
  const session = `SET SESSION AUTHORIZATION ${quoted(owner)}`;
  return role === undefined ? `${session};RESET ROLE` : `${session};SET ROLE ${quoted(role)}`;
}

function quoted(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}

function queryMessage(text: string): Buffer {
  const message = Buffer.from(`Q....${text}\0`);
  message.writeUInt32BE(message.length - 1, 1);
  return message;
}

/** An answer from its first message on that is not CommandComplete or a notice. */
function skipCompletions(answer: Buffer): Buffer {
  let at = 0;
  while (answer[at] === 0x43 || answer[at] === 0x4e) at += 1 + answer.readUInt32BE(at + 1);
  return answer.subarray(at);
}
