/** Where the time goes: a CPU profile of the server under one load, by area and by function. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { mainThreadUs, type Process } from './processes.ts';
import { aligned, round } from './table.ts';

interface Frame {
  functionName: string;
  url: string;
  lineNumber: number;
}

interface Node {
  id: number;
  callFrame: Frame;
  children?: number[];
}

interface CpuProfile {
  nodes: Node[];
  samples: number[];
  timeDeltas: number[];
}

/** Profiles a server while `work` runs. `work` answers how many requests (or memories) it was. */
export async function profiled(
  file: string,
  server: Process,
  unit: string,
  work: () => Promise<number>,
): Promise<string> {
  rmSync(file, { force: true });
  server.child.kill('SIGUSR2');
  await sleep(150);
  const before = mainThreadUs(server.pid) ?? 0;
  const count = await work();
  const usedUs = (mainThreadUs(server.pid) ?? 0) - before;
  server.child.kill('SIGUSR2');
  for (let i = 0; i < 200 && !existsSync(file); i++) await sleep(50);
  const profile: CpuProfile = JSON.parse(readFileSync(file, 'utf8'));
  rmSync(file);
  return summaryOf(profile, usedUs / count, unit);
}

/** Samples are taken by the clock, also while the process waits for a core; so only their shares count, of what Linux says was used. */
function summaryOf({ nodes, samples, timeDeltas }: CpuProfile, us_each: number, unit: string): string {
  const known = new Map(nodes.map((node) => [node.id, node]));
  const parents = new Map<number, Node>();
  for (const node of nodes) for (const child of node.children ?? []) parents.set(child, node);
  const byArea = new Map<string, number>();
  const byFunction = new Map<string, number>();
  const add = (sums: Map<string, number>, name: string, us: number) =>
    sums.set(name, (sums.get(name) ?? 0) + us);
  let busy = 0;
  samples.forEach((id, i) => {
    const node = known.get(id)!;
    const us = timeDeltas[i]!;
    const { functionName } = node.callFrame;
    if (functionName === '(idle)' || functionName === '(root)' || node.callFrame.url === 'node:inspector')
      return;
    busy += us;
    const area = areaOf(node, parents);
    add(byArea, area, us);
    add(byFunction, nameOf(node, area), us);
  });
  const top = (sums: Map<string, number>, length: number) =>
    [...sums].sort((a, b) => b[1] - a[1]).slice(0, length);
  const share = (us: number) => `${((us / busy) * 100).toFixed(1)} %`;
  const rows = (sums: Map<string, number>, length: number) =>
    top(sums, length).map(([name, us]) => [name, round((us / busy) * us_each), share(us)]);
  return [
    aligned([
      [`area (${round(us_each)} us of the main thread a ${unit})`, 'us', 'share'],
      ...rows(byArea, 16),
    ]),
    aligned([['function, its own time', 'us', 'share'], ...rows(byFunction, 18)]),
  ].join('\n\n');
}

function nameOf({ callFrame: { functionName, url, lineNumber } }: Node, area: string): string {
  if (functionName.startsWith('(')) return functionName;
  const place = url
    ? `${url.replace(/^.*\/(server\/src|node_modules)\//, '').replace(/^file:\/\//, '')}:${lineNumber + 1}`
    : `in ${area}`;
  return `${functionName || '(anonymous)'} ${place}`;
}

const fastifyParts =
  /^(fastify|find-my-way|avvio|light-my-request|fast-json-stringify|@fastify\/|secure-json-parse|fast-decode-uri|fast-querystring|rfdc|process-warning|@fastify)/;

/** A frame of Node's own counts for the nearest caller that is code of somebody: a socket write of pg is pg's. */
function areaOf(node: Node, parents: Map<number, Node>): string {
  const { functionName, url } = node.callFrame;
  if (functionName === '(garbage collector)') return 'garbage collection';
  if (functionName === '(program)') return 'native code outside JavaScript';
  if (!url && /^(parse|stringify)$/.test(functionName)) return 'JSON';
  if (
    url.startsWith('node:internal/crypto') ||
    /^(hmac|sha|createHmac|createHash|update|digest)/.test(functionName)
  )
    return 'cryptography';
  for (let at: Node | undefined = node; at; at = parents.get(at.id)) {
    const area = ownArea(at.callFrame);
    if (area) return area;
  }
  return 'node: sockets, timers, promises';
}

function ownArea({ url, functionName }: Frame): string | undefined {
  const own = /\/server\/src\/(.*)$/.exec(url)?.[1];
  if (own)
    return own
      .split('/')
      .slice(0, own.startsWith('modules/') ? 3 : 2)
      .join('/');
  const dependency = /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1];
  if (dependency) {
    if (fastifyParts.test(dependency)) return 'Fastify';
    if (/^pg($|-(?!boss))/.test(dependency)) return 'pg';
    return dependency;
  }
  if (/^node:(_http|internal\/http)/.test(url)) return 'node:http';
  // fast-json-stringify and typebox compile functions that belong to no file.
  if (!url && /^(anonymous|validate|main)\d*$/.test(functionName)) return 'compiled schemas';
  return undefined;
}
