import { randomFillSync } from 'node:crypto';

const pool = Buffer.alloc(4096);
let used = pool.length;
let lastMs = 0;
let counter = 0;
const hex: string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

function random(bytes: number): number {
  if (used + bytes > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  const at = used;
  used += bytes;
  return at;
}

/** Of the counter: 12 bits before the variant, 14 behind it. */
const COUNTER_BITS = 26;
/** Less is how clocks are adjusted all the time; ids wait for those. */
const SET_BACK_MS = 1_000;

/**
 * A UUID version 7 (RFC 9562, section 6.2, method 1): 48 bits of milliseconds, then a 26-bit counter that grows within one
 * millisecond of this process, so that ids made in order sort in order. They never run ahead of the clock, on which whoever
 * asks for what there is until now relies: neither in a burst, nor after the clock was set back.
 */
export function uuidv7(): string {
  const now = Date.now();
  if (now > lastMs || now < lastMs - SET_BACK_MS) {
    lastMs = now;
    counter = pool.readUInt32BE(random(4)) >>> (33 - COUNTER_BITS);
  } else if (++counter >= 2 ** COUNTER_BITS) {
    lastMs += 1;
    counter = 0;
  }
  const at = random(6);
  const high = Math.floor(lastMs / 2 ** 16);
  const low = lastMs % 2 ** 16;
  return (
    high.toString(16).padStart(8, '0') +
    '-' +
    low.toString(16).padStart(4, '0') +
    '-7' +
    (counter >>> 14).toString(16).padStart(3, '0') +
    '-' +
    hex[((counter >>> 8) & 0x3f) | 0x80] +
    hex[counter & 0xff] +
    '-' +
    hex[pool[at]!] +
    hex[pool[at + 1]!] +
    hex[pool[at + 2]!] +
    hex[pool[at + 3]!] +
    hex[pool[at + 4]!] +
    hex[pool[at + 5]!]
  );
}

/** The smallest UUID version 7 of a time: those made from then on are greater. */
export function firstUuidv7(ms: number): string {
  const hex = Math.max(0, Math.floor(ms)).toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`;
}

/** The time in a UUID version 7, in milliseconds. */
export const timeOfId = (uuid: string): number => Number.parseInt(uuid.slice(0, 8) + uuid.slice(9, 13), 16);

const uuidForm = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** True for any textual UUID. An id of another form names nothing: callers answer 404, as for one that never existed. */
export const isUuid = (value: string): boolean => uuidForm.test(value);

/** The form of tenant, corpus and document ids. */
export const slugPattern = '^[a-z0-9][a-z0-9._-]{0,63}$';
const slugForm = new RegExp(slugPattern);
export const isSlug = (value: string): boolean => slugForm.test(value);
