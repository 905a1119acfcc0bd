import { Type as T } from 'typebox';
import { invalid } from './errors.ts';

const earliest = Date.parse('0001-01-01T00:00:00Z');
const latest = Date.parse('9999-12-31T23:59:59.999Z');

/**
 * An RFC 3339 timestamp from outside in the one form that is stored: UTC with milliseconds.
 * @throws ApiError 422 for what has the form but is no time a calendar or the database knows, as the year 0
 */
export function storedTimestamp(text: string, path: string): string {
  // A leap second is the same instant as the second after it in a count that has none (RFC 3339, section 5.7).
  const leap = /^(.*T\d\d:\d\d):60(.*)$/i.exec(text);
  const ms = leap ? Date.parse(`${leap[1]}:59${leap[2]}`) + 1_000 : Date.parse(text);
  if (!(ms >= earliest && ms <= latest)) throw invalid([{ path, message: 'is not a time that can be kept' }]);
  return new Date(ms).toISOString();
}

/** RFC 3339, without leap seconds, in years of four digits in UTC too, whatever the offset: the others can not be kept. */
export const Timestamp = T.String({
  format: 'date-time',
  maxLength: 40,
  pattern: '^(?!000[01]|9999-12-31[Tt ].*-\\d\\d:?\\d\\d$|.*:60)',
});
