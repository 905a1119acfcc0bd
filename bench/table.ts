/** The lines of a run: what was measured, its floor, their ratio, and whether the target is met. */
import { execFileSync } from 'node:child_process';
import { cpus, loadavg, totalmem } from 'node:os';

export interface Figure {
  what: string;
  measured: string;
  floor?: string;
  ratio?: number;
  target?: { text: string; met: boolean };
  note?: string;
}

export const median = (values: number[]): number => percentile(values, 0.5);

export function percentile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export const round = (value: number): string =>
  value >= 100 ? Math.round(value).toLocaleString('en') : value >= 10 ? value.toFixed(1) : value.toFixed(2);

export const atLeast = (value: number, least: number) => ({ text: `>= ${least}`, met: value >= least });
export const atMost = (value: number, most: number) => ({ text: `<= ${most}`, met: value <= most });

export const machine = (database: string): string => {
  const processors = cpus();
  const load = loadavg().map((value) => value.toFixed(2));
  return [
    `${processors[0]?.model.trim()}, ${processors.length} cores, ${Math.round(totalmem() / 2 ** 30)} GB`,
    `node ${process.version} · ${database} · commit ${commit()}`,
    `${new Date().toISOString()} · load before ${load.join(' ')}`,
  ].join('\n');
};

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { stdio: ['ignore', 'pipe', 'ignore'] })
      .toString()
      .trim();
  } catch {
    return 'unknown';
  }
}

/** A table in Markdown. */
export function tableOf(figures: Figure[]): string {
  const head = ['', 'measured', 'floor', 'ratio', 'target', ''];
  const body = figures.map(({ what, measured, floor, ratio, target, note }) => [
    what,
    measured,
    floor ?? '',
    ratio === undefined ? '' : ratio.toFixed(2),
    target?.text ?? '',
    target ? (target.met ? 'ok' : 'MISSED') : (note ?? ''),
  ]);
  return aligned([head, ...body]);
}

export function aligned(rows: string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(3, ...rows.map((cells) => cells[column]!.length)));
  const line = (cells: string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`;
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [line(rows[0]!), rule, ...rows.slice(1).map(line)].join('\n');
}
