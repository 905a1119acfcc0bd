import { Redis } from 'ioredis';
import { SharedUnavailable } from './errors.ts';
import type { Log } from './log.ts';
import { type Bucket, type FilledBucket, type Shared, type Taken, unheardTtlMs } from './shared.ts';
import { connection, listener, speaker } from './words.ts';

// Of every request all buckets at once: read, decide, and only then charge. Requests that come together go in one call, one
// after another: sending costs more than deciding. All buckets are read by one command and each is written once, as
// "tokens time rate burst". Time is Redis's own, so processes need no common clock.
const takeScript = `
local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)
local known = redis.call('MGET', unpack(KEYS))
local levels = {}; local charged = {}; local order = {}
local out = {}; local k = 0; local a = 0
while a < #ARGV do
  local n = tonumber(ARGV[a + 1]); a = a + 1
  local first = #out; out[first + 1] = 1; out[first + 2] = -1; out[first + 3] = 0
  for i = 1, n do
    local rate, burst, cost = tonumber(ARGV[a + i*3-2]), tonumber(ARGV[a + i*3-1]), tonumber(ARGV[a + i*3])
    local key = KEYS[k + i]
    local v = levels[key]
    if not v then
      v = burst
      local tokens, at = string.match(known[k + i] or '', '^(%S+) (%S+)')
      if tokens then v = tonumber(tokens) + math.max(0, now - tonumber(at)) / 1000 * rate end
    end
    v = math.min(burst, v); levels[key] = v
    if cost > v then
      local wait = math.ceil((cost - v) / rate * 1000)
      if wait > out[first + 3] then out[first + 1] = 0; out[first + 2] = i - 1; out[first + 3] = wait end
    end
  end
  for i = 1, n do
    local key = KEYS[k + i]
    if out[first + 1] == 1 then
      levels[key] = levels[key] - tonumber(ARGV[a + i*3])
      if not charged[key] then order[#order + 1] = key end
      charged[key] = { ARGV[a + i*3-2], ARGV[a + i*3-1] }
    end
    out[first + 3 + i] = tostring(levels[key])
  end
  k = k + n; a = a + n * 3
end
for _, key in ipairs(order) do
  local rate, burst = charged[key][1], charged[key][2]
  redis.call('SET', key, levels[key] .. ' ' .. now .. ' ' .. rate .. ' ' .. burst,
    'PX', math.ceil(burst / rate * 1000) + 1000)
end
return out`;

interface RedisWithTake extends Redis {
  take(keys: number, ...args: (string | number)[]): Promise<(number | string)[]>;
}

const limitPrefix = 'manushya:limit:';

/** Batches of keys that begin so. Prefixes are made of tenant ids, which hold nothing that a pattern takes for more. */
const keysOf = (client: Redis, prefix: string): AsyncIterable<string[]> =>
  client.scanStream({ match: `${limitPrefix}${prefix}*`, count: 1_000 });

/** @throws SharedUnavailable */
const answered = <T>(asked: Promise<T>): Promise<T> =>
  asked.catch((error) => {
    throw new SharedUnavailable(error);
  });

async function levelsOf(client: Redis, prefix: string, most: number): Promise<FilledBucket[]> {
  const found: FilledBucket[] = [];
  for await (const keys of keysOf(client, prefix)) {
    const now = Date.now();
    if (keys.length === 0) continue;
    const rows = await client.mget(keys);
    rows.forEach((row, i) => {
      // A bucket may have run out between the two questions.
      if (row === null) return;
      const [tokens, at, rate, burst] = row.split(' ').map(Number) as [number, number, number, number];
      const filled = Math.min(burst, tokens + ((now - at) / 1000) * rate);
      if (filled < burst)
        found.push({ key: keys[i]!.slice(limitPrefix.length), rate, burst, tokens: filled });
    });
    if (found.length >= most) break;
  }
  return found.slice(0, most);
}

async function clearAll(client: Redis, prefix: string): Promise<number> {
  let cleared = 0;
  for await (const keys of keysOf(client, prefix)) if (keys.length) cleared += await client.unlink(keys);
  return cleared;
}

interface Taking {
  buckets: Bucket[];
  resolve: (taken: Taken) => void;
  reject: (error: unknown) => void;
}

const mostInOneCall = 100;

/** Takes for all requests that the process has read together, in one call. */
function createTaker(client: RedisWithTake): Shared['take'] {
  let waiting: Taking[] = [];

  const takeAll = async (group: Taking[]) => {
    const keys = group.flatMap(({ buckets }) => buckets.map(({ key }) => limitPrefix + key));
    const args = group.flatMap(({ buckets }) => [
      buckets.length,
      ...buckets.flatMap(({ rate, burst, cost }) => [rate, burst, cost]),
    ]);
    try {
      const answer = (await client.take(keys.length, ...keys, ...args)).map(Number);
      let at = 0;
      for (const { buckets, resolve } of group) {
        const [allowed, scope, retryAfterMs] = answer.slice(at, at + 3) as [number, number, number];
        at += 3 + buckets.length;
        const remaining = answer.slice(at - buckets.length, at);
        resolve({ allowed: allowed === 1, scope, retryAfterMs, remaining });
      }
    } catch (error) {
      for (const { reject } of group) reject(new SharedUnavailable(error));
    }
  };

  const send = () => {
    const all = waiting;
    waiting = [];
    for (let at = 0; at < all.length; at += mostInOneCall) void takeAll(all.slice(at, at + mostInOneCall));
  };

  return (buckets) =>
    new Promise((resolve, reject) => {
      if (waiting.push({ buckets, resolve, reject }) === 1) setImmediate(send);
    });
}

const longestAnswerMs = 1_000;

/** What processes share through one Redis. */
export function redisShared(url: string, log: Log): Shared {
  const client = new Redis(url, {
    ...connection(longestAnswerMs),
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    commandTimeout: longestAnswerMs,
  }) as RedisWithTake;
  const listeners: ((topic: string, key: string) => void)[] = [];
  const tell = (topic: string, key: string) => {
    for (const listener of listeners) listener(topic, key);
  };
  client.defineCommand('take', { lua: takeScript });
  let down = false;
  let closed = false;
  client.on('error', (error) => {
    // A command may be done before the first connection is, which then fails for being closed.
    if (closed) return;
    if (!down)
      log.warn({ err: error }, 'Redis can not be reached; limits follow RL_FAIL_MODE until it is back');
    down = true;
  });
  client.on('ready', () => {
    if (down) log.info('Redis is back');
    down = false;
  });
  const mouth = speaker(client, log);
  const ear = listener(url, tell, log);
  return {
    take: createTaker(client),
    levels: (prefix, most) => answered(levelsOf(client, prefix, most)),
    clear: (prefix) => answered(clearAll(client, prefix)),
    invalidate: (topic, key) => {
      tell(topic, key);
      mouth.say(`${topic} ${key}`);
    },
    onInvalidate: (listener) => void listeners.push(listener),
    cacheTtlMs: () => (ear.hears() ? 30_000 : unheardTtlMs),
    spreadMs: () => (ear.hears() ? 100 : unheardTtlMs),
    reachable: async () => {
      try {
        return (await client.ping()) === 'PONG';
      } catch {
        return false;
      }
    },
    close: async () => {
      await mouth.close();
      closed = true;
      client.disconnect();
      ear.close();
    },
  };
}
