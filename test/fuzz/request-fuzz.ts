import { setTimeout as pause } from 'node:timers/promises';
import { play } from './client.ts';
import { judgeRequests } from './judge-requests.ts';
import { requestScript, type Script } from './requests.ts';
import { readConnection, type Verdict } from './strict-request.ts';
import type { FuzzUpstream, Sighting } from './upstream.ts';

/** A proxy and the upstreams behind it, which note what they are sent. */
export type RequestStand = {
  readonly port: number;
  readonly upstreams: readonly FuzzUpstream[];
  /** A query's body may get a length on the way. */
  readonly buffers: boolean;
  readonly patienceMs: number;
};

export type Failure = { readonly case: number; readonly script: Script; readonly faults: readonly string[] };

export type RequestTally = {
  connections: number;
  /** Requests that a client sent, whole or not, that the strict reader could tell apart. */
  requests: number;
  answered: number;
  refused: number;
  /** Connections by how the strict reader says they end. */
  readonly ends: Record<string, number>;
  readonly failures: Failure[];
};

export type RequestRun = {
  readonly seed: number;
  readonly requests: number;
  readonly first?: number;
  readonly atOnce?: number;
  readonly maxFailures?: number;
};

const BATCH = 256;
const AT_ONCE = 32;
/** Only there is every address of 127.0.0.0/8 one's own; elsewhere one connection at a time is played from the only one. */
const MANY_ADDRESSES = process.platform === 'linux';

export const addressOf = (slot: number): string | undefined => (MANY_ADDRESSES ? `127.77.${slot >> 8}.${slot & 255}` : undefined);

/** What the upstreams have seen of one client since it was last asked, in order. */
export const takeSightings = (stand: Pick<RequestStand, 'upstreams'>, address: string): Sighting[] => {
  const all = stand.upstreams.flatMap((upstream) => {
    const list = upstream.sightings.get(address) ?? [];
    upstream.sightings.delete(address);
    return list;
  });
  return all.length > 1 ? all.sort((a, b) => a.nonce - b.nonce) : all;
};

type Played = {
  readonly index: number;
  readonly script: Script;
  readonly verdict: Verdict;
  readonly address: string;
  readonly heard: Awaited<ReturnType<typeof play>>;
};

/** One connection from a slot's address, and what an upstream saw of it is left there. */
const playOne = async (stand: RequestStand, script: Script, index: number, slot: number): Promise<Played> => {
  const verdict = readConnection(script.writes.join(''));
  const address = addressOf(slot);
  const heard = await play(script, verdict, { port: stand.port, address, patienceMs: stand.patienceMs });
  return { index, script, verdict, address: address ?? '127.0.0.1', heard };
};

const judgeOne = (stand: RequestStand, { verdict, address, heard }: Played) =>
  judgeRequests(verdict, heard, takeSightings(stand, address), stand.buffers);

/** Requests still on their way to an upstream whose client has gone get here. */
const QUIET_MS = 40;

/** Plays cases until so many requests have been sent. `stop` ends it early. */
export const fuzzRequests = async (stand: RequestStand, run: RequestRun, stop: () => boolean = () => false): Promise<RequestTally> => {
  const tally: RequestTally = { connections: 0, requests: 0, answered: 0, refused: 0, ends: {}, failures: [] };
  const { seed, maxFailures = 20 } = run;
  const atOnce = MANY_ADDRESSES ? (run.atOnce ?? AT_ONCE) : 1;
  const late = new Set<string>();
  let next = run.first ?? 0;
  while (tally.requests < run.requests && tally.failures.length < maxFailures && !stop()) {
    const batch: Played[] = [];
    let left = Math.min(MANY_ADDRESSES ? BATCH : 1, Math.ceil((run.requests - tally.requests) / 2.5));
    const worker = async (): Promise<void> => {
      while (left-- > 0) {
        const index = next++;
        batch.push(await playOne(stand, requestScript(seed, index, 6), index, index % 0xff00));
      }
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
    await pause(MANY_ADDRESSES ? QUIET_MS : 0);
    for (const played of batch) {
      const { verdict, script, index } = played;
      const { faults, answered, refused } = judgeOne(stand, played);
      tally.connections++;
      tally.requests += verdict.requests.length + (verdict.end === 'clean' || verdict.end === 'closed' ? 0 : 1);
      tally.answered += answered;
      tally.refused += refused;
      tally.ends[verdict.end] = (tally.ends[verdict.end] ?? 0) + 1;
      if (faults.length > 0) tally.failures.push({ case: index, script, faults });
    }
    for (const { heard, address } of batch) if (heard.end === 'hung') late.add(address);
    for (const upstream of stand.upstreams) {
      for (const violation of upstream.violations.splice(0))
        tally.failures.push({ case: -1, script: { writes: [], fin: false }, faults: [`an upstream was sent ${violation}`] });
      for (const [address, list] of upstream.sightings) {
        // it was given up, which is told already, and so reaches the upstream's end only now
        if (late.has(address)) continue;
        tally.failures.push({
          case: -1,
          script: { writes: [], fin: false },
          faults: [`an upstream was sent ${list.length} requests by ${address}, who sent none`],
        });
      }
      upstream.sightings.clear();
    }
  }
  return tally;
};

/** The faults of one script on its own, played on a stand at rest. */
export const faultsOf = async (stand: RequestStand, script: Script): Promise<readonly string[]> => {
  const played = await playOne(stand, script, 0, 0xff01);
  await pause(QUIET_MS);
  const faults = [...judgeOne(stand, played).faults];
  for (const upstream of stand.upstreams)
    faults.push(...upstream.violations.splice(0).map((violation) => `an upstream was sent ${violation}`));
  return faults;
};
