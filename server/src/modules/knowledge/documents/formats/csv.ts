import { type CsvError, parse } from 'csv-parse/sync';
import { type Extracted, Unreadable, type Warning } from './format.ts';
import { decode } from './text.ts';
import { headerOf, Writer } from './writer.ts';

const delimiters = [',', ';', '\t', '|'];

/**
 * A table as rows with the names of its columns: `- Name: Ada; Born: 1815`. Separated by comma, semicolon, tab or bar,
 * whichever makes the most even columns.
 * @throws Unreadable
 */
export function readCsv(bytes: Buffer, maxChars: number): Pick<Extracted, 'text' | 'warnings'> {
  const { text, warnings } = decodeTable(bytes);
  const delimiter = delimiterOf(text);
  let rows: string[][];
  try {
    rows = parse(text, {
      delimiter,
      relax_column_count: true,
      relax_quotes: true,
      skip_empty_lines: true,
      skip_records_with_empty_values: true,
      max_record_size: 1_000_000,
    });
  } catch (error) {
    const { code, lines } = error as CsvError & { lines?: number };
    if (!code?.startsWith('CSV_')) throw error;
    throw new Unreadable(
      `The CSV can not be read${lines ? ` at line ${lines}` : ''}: a quote is not closed, or a row is too long.`,
    );
  }
  const writer = new Writer(maxChars);
  const names = headerOf(rows);
  for (const row of names ? rows.slice(1) : rows) writer.row(row, names);
  // Nothing but its header: that is then what there is.
  if (writer.isEmpty) writer.rows(rows);
  return { text: writer.finish(), warnings };
}

/** Spreadsheets of some systems still save CSV in an encoding they do not name. */
function decodeTable(bytes: Buffer): { text: string; warnings: Warning[] } {
  try {
    return { text: decode(bytes), warnings: [] };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    const message = 'The file is not UTF-8 and does not say what it is; it was read as windows-1252.';
    return { text: decode(bytes, 'windows-1252'), warnings: [{ code: 'ENCODING_GUESSED', message }] };
  }
}

/** The separator under which most of the first lines have the same number of columns, and more than one. */
function delimiterOf(text: string): string {
  const lines = text
    .slice(0, 64_000)
    .split(/\r\n|\n|\r/)
    .filter((line) => line.trim() !== '')
    .slice(0, 20);
  let best = { delimiter: ',', score: 0 };
  for (const delimiter of delimiters) {
    const counts = lines.map((line) => line.replace(/"(?:[^"]|"")*"/g, '').split(delimiter).length);
    const columns = counts[0] ?? 1;
    if (columns < 2) continue;
    const score = counts.filter((count) => count === columns).length * 100 + Math.min(columns, 50);
    if (score > best.score) best = { delimiter, score };
  }
  return best.delimiter;
}
