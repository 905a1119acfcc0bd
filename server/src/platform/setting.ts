import { isIP } from 'node:net';

/** A bad or missing environment variable. The message names the variable and says what it must be. */
export class ConfigError extends Error {
  override name = 'ConfigError';
}

export interface Setting<T> {
  initial: T;
  read: (raw: string) => T;
  about: string;
}

export const fail = (message: string): never => {
  throw new ConfigError(message);
};

export const text = (initial: string, about: string): Setting<string> => ({
  initial,
  about,
  read: (raw) => raw,
});
export const optional = (about: string): Setting<string | undefined> => ({
  initial: undefined,
  about,
  read: (raw) => raw,
});
export const integer = (initial: number, min: number, max: number, about: string): Setting<number> => ({
  initial,
  about,
  read: (raw) => {
    const value = Number(raw);
    return Number.isInteger(value) && value >= min && value <= max
      ? value
      : fail(`must be a whole number from ${min} to ${max}`);
  },
});
/** A whole number that is `undefined` until it is given. */
export const optionalInteger = (min: number, max: number, about: string): Setting<number | undefined> => ({
  ...integer(min, min, max, about),
  initial: undefined,
});
export const choice = <const V extends string>(
  initial: V,
  values: readonly V[],
  about: string,
): Setting<V> => ({
  initial,
  about,
  read: (raw) => values.find((value) => value === raw) ?? fail(`must be one of ${values.join(', ')}`),
});
/** Some of several values, comma separated. */
export const choices = <const V extends string>(values: readonly V[], about: string): Setting<V[]> => ({
  initial: [],
  about,
  read: (raw) =>
    list(about)
      .read(raw)
      .map((item) => choice(values[0]!, values, about).read(item)),
});
export const boolean = (initial: boolean, about: string): Setting<boolean> => ({
  initial,
  about,
  read: (raw) => {
    if (/^(true|1|yes|on)$/i.test(raw)) return true;
    return /^(false|0|no|off)$/i.test(raw) ? false : fail('must be true or false');
  },
});
/** `undefined` until decided by the environment (development or production). */
export const decided = (about: string): Setting<boolean | undefined> => ({
  ...boolean(false, about),
  initial: undefined,
});
export const url = (protocols: string[], about: string): Setting<string | undefined> => ({
  initial: undefined,
  about,
  read: (raw) => {
    const parsed = URL.canParse(raw)
      ? new URL(raw)
      : fail(`must be a URL starting with ${protocols.join(' or ')}`);
    return protocols.includes(`${parsed.protocol}//`)
      ? raw
      : fail(`must be a URL starting with ${protocols.join(' or ')}`);
  },
});
export const list = (about: string): Setting<string[]> => ({
  initial: [],
  about,
  read: (raw) =>
    raw
      .split(',')
      .map((item) => item.trim())
      .filter(Boolean),
});

export const origins = (about: string): Setting<string[]> => ({
  initial: [],
  about,
  read: (raw) =>
    raw
      .split(',')
      .map((item) => item.trim())
      .filter(Boolean)
      .map((item) =>
        /^https?:[^*]+$/.test(item) && URL.canParse(item) && new URL(item).origin === item.replace(/\/$/, '')
          ? new URL(item).origin
          : fail('must be origins such as https://app.example.com, comma separated'),
      ),
});
/** An address with a place for something in it. */
export const template = (place: string, about: string): Setting<string | undefined> => ({
  initial: undefined,
  about,
  read: (raw) =>
    /^https?:/.test(raw) && URL.canParse(raw) && raw.includes(place)
      ? raw
      : fail(`must be an http or https URL with ${place} in it`),
});

/** Never `true`: that would believe what the client itself wrote into the header. */
export const proxies = (about: string): Setting<number | string[] | undefined> => ({
  initial: undefined,
  about,
  read: (raw) => {
    if (/^(false|0)$/i.test(raw)) return undefined;
    if (/^\d{1,2}$/.test(raw)) return Number(raw);
    const addresses = raw.split(',').map((item) => item.trim());
    return addresses.every((item) => isIP(item.replace(/\/\d{1,3}$/, '')) > 0)
      ? addresses
      : fail('must be a number of proxies, or their addresses (CIDR), comma separated');
  },
});
