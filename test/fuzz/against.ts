import { setTimeout as pause } from 'node:timers/promises';
import { play } from './client.ts';
import { DIFFERENCES } from './differences.ts';
import { type Nginx, startNginx } from './nginx.ts';
import { addressOf, takeSightings } from './request-fuzz.ts';
import { requestScript, type Script } from './requests.ts';
import { openRequestStand } from './stands.ts';
import { valuesOf } from './strict-message.ts';
import { readConnection, type Verdict } from './strict-request.ts';
import { type FuzzUpstream, openFuzzUpstream, type UpstreamAnswer } from './upstream.ts';

const PATIENCE_MS = 5_000;
const QUIET_MS = 30;
const BATCH = 256;
const AT_ONCE = 32;

/** What became of a client's bytes behind a proxy. */
type Fate = {
  /** Whole requests that the upstream could read, as one text each. */
  readonly requests: readonly string[];
  /** The upstream was sent what a strict reader does not take. */
  readonly malformed: boolean;
};

/** In one way only: what nginx makes of interim answers is not the question here. */
const plainly = (): UpstreamAnswer => ({ writes: ['HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'], after: 'keep' });

type Side = { readonly port: number; readonly upstreams: readonly FuzzUpstream[] };

const fatesOf = (side: Side, addresses: readonly string[]): Fate[] => {
  const malformed = new Set<string>();
  for (const upstream of side.upstreams) {
    for (const violation of upstream.violations.splice(0)) {
      const address = /x-forwarded-for: ([\d.]+)/i.exec(violation)?.[1];
      if (address !== undefined) malformed.add(address);
    }
  }
  return addresses.map((address) => ({
    requests: takeSightings(side, address)
      .filter(({ whole }) => whole)
      .map(({ request: { method, path, body } }) => `${method} ${path} ${body}`),
    malformed: malformed.has(address),
  }));
};

/** Debian's nginx takes 1000. */
const MANY = 990;
/** Fields of which nginx takes one. */
const SINGLE = ['if-none-match', 'range', 'content-type', 'user-agent', 'te', 'expect', 'upgrade'];
const NO_PATH = /^https?:\/\/[^/]*$/i;

/** More `..` than folders at some point. */
const climbs = (path: string): boolean => {
  let depth = 0;
  for (const part of path
    .split('?')[0]!
    .split('/')
    .filter((one) => one !== '')) {
    depth += part === '..' ? -1 : 1;
    if (depth < 0) return true;
  }
  return false;
};

/** What nginx makes a difference of though it is legal. */
const specialOf = (verdict: Verdict, k: number, text: string): string | null => {
  const request = verdict.requests[k]!;
  const [host = 'none'] = valuesOf(request.fields, 'host');
  if (request.method === 'TRACE') return 'TRACE';
  if (request.path === '*') return 'OPTIONS *';
  if (verdict.requests[k - 1]?.method === 'TRACE') return 'behind TRACE';
  if (host === '' || host.startsWith(':')) return 'an empty Host';
  if (request.fields.length >= MANY) return 'a thousand fields';
  if (NO_PATH.test(request.target)) return 'a URL without a path';
  if (climbs(request.path)) return 'a path above the root';
  if (/^[^?]*%(?![0-9a-f]{2})/i.test(request.path)) return 'a malformed %';
  if (SINGLE.some((name) => valuesOf(request.fields, name).length > 1)) return 'a repeated field';
  if (/: *\t|\t *\r\n/.test(text)) return 'a tab';
  return null;
};

/** What is special where the proxies part, at request `k` of a connection. `legal` = look at what is legal first: Banyan alone took it. */
const reasonOf = (verdict: Verdict, k: number, text: string, legal: boolean): string => {
  const request = verdict.requests[k];
  if (request === undefined) return verdict.end;
  const doubt = request.doubts.find((one) => one === 'trailer-framing') ?? request.doubts[0] ?? null;
  const special = specialOf(verdict, k, text);
  const named = legal ? (special ?? doubt) : (doubt ?? special);
  if (named !== null) return named;
  const before = verdict.requests[k - 1];
  if (before !== undefined) return before.minor === 0 ? 'behind HTTP/1.0' : before.upgrades ? 'behind an Upgrade' : 'pipelined';
  return request.upgrades ? 'upgrade' : request.framing === 'chunked' ? 'chunked' : 'sound';
};

/** How the fates differ; null = they do not. */
const differenceOf = (text: string, verdict: Verdict, banyan: Fate, nginx: Fate): string | null => {
  const ours = banyan.requests;
  const theirs = nginx.requests;
  let k = 0;
  while (k < ours.length && k < theirs.length && ours[k] === theirs[k]) k++;
  const reason = reasonOf(verdict, k, text, k < ours.length);
  if (banyan.malformed) return `Banyan sends on what no strict reader takes: ${reason}`;
  if (nginx.malformed) return `nginx sends on what no strict reader takes: ${reason}`;
  if (k < ours.length && k < theirs.length) return `sent on differently: ${reason}`;
  if (k < ours.length) return `Banyan alone accepts: ${reason}`;
  return k < theirs.length ? `nginx alone accepts: ${reason}` : null;
};

type Found = { count: number; readonly example: string; readonly because: string | null };

const escaped = (script: Script): string => {
  const text = JSON.stringify(script.writes.join('')).slice(1, -1).replaceAll('\\"', '"');
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
};

/** Sends single requests to both, and says where they part. Exit code: 0 all differences are known, 1 some are not, 2 no nginx. */
export const runAgainst = async (seed: number, requests: number, first: number, json: boolean): Promise<number> => {
  if (addressOf(0) === undefined) {
    process.stderr.write('fuzz: --against needs the many loopback addresses of Linux\n');
    return 2;
  }
  let nonces = 0;
  const upstream = await openFuzzUpstream(plainly, () => ++nonces);
  let nginx: Nginx;
  try {
    nginx = await startNginx(upstream.port);
  } catch (error) {
    await upstream.close();
    process.stderr.write(`fuzz: nginx could not be started: ${(error as Error).message}\n`);
    return 2;
  }
  const banyan = await openRequestStand('plain', PATIENCE_MS);
  const other: Side = { port: nginx.port, upstreams: [upstream] };
  const found = new Map<string, Found>();
  let same = 0;
  const playOn = async (side: Side, script: Script, verdict: Verdict, address: string): Promise<void> => {
    await play(script, verdict, { port: side.port, address, patienceMs: PATIENCE_MS });
  };
  for (let next = first; next < first + requests; next += BATCH) {
    const indices = Array.from({ length: Math.min(BATCH, first + requests - next) }, (_, i) => next + i);
    const scripts = indices.map((index) => ({ ...requestScript(seed, index, 1), fin: false }));
    const verdicts = scripts.map(({ writes }) => readConnection(writes.join('')));
    const addresses = indices.map((index) => addressOf(index % 0xff00)!);
    let at = 0;
    const worker = async (): Promise<void> => {
      for (let i = at++; i < scripts.length; i = at++)
        await Promise.all([banyan, other].map((side) => playOn(side, scripts[i]!, verdicts[i]!, addresses[i]!)));
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    await pause(QUIET_MS);
    const [ours, theirs] = [fatesOf(banyan, addresses), fatesOf(other, addresses)];
    for (const [i, script] of scripts.entries()) {
      const name = differenceOf(script.writes.join(''), verdicts[i]!, ours[i]!, theirs[i]!);
      if (name === null) {
        same++;
        continue;
      }
      const known = found.get(name);
      if (known !== undefined) known.count++;
      else found.set(name, { count: 1, example: escaped(script), because: DIFFERENCES[name] ?? null });
    }
  }
  await banyan.stop();
  await nginx.stop();
  await upstream.close();

  const classes = [...found].sort(([, a], [, b]) => b.count - a.count).map(([name, what]) => ({ name, ...what }));
  const unknown = classes.filter(({ because }) => because === null);
  if (json) process.stdout.write(`${JSON.stringify({ seed, nginx: nginx.version, requests, same, classes }, null, 2)}\n`);
  else {
    process.stdout.write(`seed ${seed}, against ${nginx.version}: ${requests} requests, ${same} with the same fate\n`);
    for (const { name, count, example, because } of classes)
      process.stdout.write(`${count}  ${name}\n    ${because ?? 'NOT EXPLAINED'}\n    ${example}\n`);
  }
  return unknown.length === 0 ? 0 : 1;
};
