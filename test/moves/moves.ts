import { writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { openWorkshop } from '../../bench/processes.ts';

export type MovesOptions = {
  readonly database: string;
  readonly seconds: number;
  readonly moves: number;
  readonly perSecond: number;
  readonly replicas: number;
  readonly workers: number;
  readonly say: (line: string) => void;
};

export type MovesReport = {
  readonly requests: number;
  readonly moves: number;
  /** Requests without a whole, own answer. */
  readonly lost: number;
  /** Connections that broke. */
  readonly resets: number;
  /** Ids that more than one upstream was asked for on behalf of the client, or one of them twice. */
  readonly doubled: number;
  /** Copies that were made twice. */
  readonly copiedTwice: number;
  /** Answers whose stage does not allow the side that gave them. */
  readonly torn: number;
  /** From the call that moved the stage to the last request that was still begun under the one before, ms. */
  readonly slowestMoveMs: number;
  readonly medianMoveMs: number;
  /** First few of what went wrong. */
  readonly faults: readonly string[];
};

type Served = { readonly id: string; readonly begun: number; readonly stage: string; readonly side: string };
type Move = { readonly stage: string; readonly called: number; readonly answered: number };

const CONTEXT = 'shop';
/** Forward and back, and so that every neighbour is reached. */
const WAY: readonly { readonly stage: string; readonly percent?: number }[] = [
  { stage: 'shadow' },
  { stage: 'canary', percent: 50 },
  { stage: 'shadow' },
  { stage: 'legacy' },
];
const STAGE = /stage=([a-z]+)/;
/** Who may answer a query. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = { legacy: ['legacy'], shadow: ['legacy'], canary: ['legacy', 'extracted'] };
const MOST_FAULTS = 20;
const EVERYWHERE_MS = 30_000;

/** Stage moves under load: replicas with workers over one store, requests at a fixed rate over kept connections, every id accounted for at both upstreams. */
export const moveUnderLoad = async (options: MovesOptions): Promise<MovesReport> => {
  const shop = openWorkshop();
  const faults: string[] = [];
  const blame = (what: string): void => {
    if (faults.length < MOST_FAULTS) faults.push(what);
  };
  try {
    const sides = {
      legacy: await shop.startNode('test/moves/upstream.ts', ['--side', 'legacy']),
      extracted: await shop.startNode('test/moves/upstream.ts', ['--side', 'extracted']),
    };
    const gateways: { gateway: string; admin: string }[] = [];
    for (let i = 0; i < options.replicas; i++) {
      const file = join(shop.folder, `replica-${i}.yaml`);
      writeFileSync(
        file,
        JSON.stringify({
          version: 1,
          listen: '127.0.0.1:0',
          admin: { listen: '127.0.0.1:0' },
          store: options.database,
          debugHeaders: true,
          legacy: { url: sides.legacy.urls.upstream },
          seal: { key: 'the same on every replica' },
          log: { level: 'warn' },
          contexts: {
            [CONTEXT]: {
              match: [{ path: '/item/:id', methods: ['GET', 'HEAD'] }],
              else: 'legacy',
              extracted: { url: sides.extracted.urls.upstream },
              stickyKey: ['header:x-user-id'],
              shadow: { maxPerSecond: 100, concurrency: 10 },
              // a difference would be asked again on both sides, and every copy is counted
              parity: { probe: '0%', ignore: [{ at: 'header:x-side', because: 'the two sides differ in it on purpose' }] },
            },
          },
        }),
      );
      const started = await shop.startNode('gateway/cli/main.ts', ['run', '--config', file, '--workers', String(options.workers)]);
      gateways.push({ gateway: started.urls.gateway!, admin: started.urls.admin! });
    }

    const agent = new Agent({ keepAlive: true, maxSockets: 64 });
    const served: Served[] = [];
    let requests = 0;
    let resets = 0;
    let lost = 0;
    const ask = (id: string, user: string, url: string): Promise<void> =>
      new Promise((resolve) => {
        const begun = performance.now();
        const outgoing = request(`${url}/item/${id}`, { agent, headers: { 'x-user-id': user } }, (incoming) => {
          let body = '';
          incoming.setEncoding('utf8').on('data', (text: string) => {
            body += text;
          });
          incoming.on('error', () => {
            resets++;
            blame(`${id}: broken off`);
            resolve();
          });
          incoming.on('end', () => {
            const route = String(incoming.headers['banyan-route'] ?? '');
            if (incoming.statusCode !== 200 || body !== JSON.stringify({ id })) {
              lost++;
              blame(`${id}: ${incoming.statusCode} ${body.slice(0, 200)}`);
            } else served.push({ id, begun, stage: STAGE.exec(route)?.[1] ?? '', side: String(incoming.headers['x-side']) });
            resolve();
          });
        });
        outgoing.on('error', (error) => {
          resets++;
          blame(`${id}: ${error.message}`);
          resolve();
        });
        outgoing.end();
      });

    const began = performance.now();
    const until = began + options.seconds * 1_000;
    const load = async (): Promise<void> => {
      const pending = new Set<Promise<void>>();
      for (let now = began; now < until; now = performance.now()) {
        // an open loop: what is due is begun, however long the others take
        const due = Math.floor(((now - began) / 1_000) * options.perSecond);
        for (; requests < due; requests++) {
          const asked = ask(`r${requests}`, `user-${requests % 1_000}`, gateways[requests % gateways.length]!.gateway);
          pending.add(asked);
          void asked.finally(() => pending.delete(asked));
        }
        await pause(2);
      }
      await Promise.all(pending);
    };
    const moves: Move[] = [];
    const everywhere = async (stage: string | undefined): Promise<void> => {
      if (stage === undefined) return;
      const stageAt = async (admin: string): Promise<string> =>
        ((await (await fetch(`${admin}/api/v1/contexts/${CONTEXT}`)).json()) as { stage: string }).stage;
      const deadline = performance.now() + EVERYWHERE_MS;
      for (const { admin } of gateways)
        while ((await stageAt(admin)) !== stage) {
          if (performance.now() > deadline) throw new Error(`a gateway has not heard of ${stage} within ${EVERYWHERE_MS} ms`);
          await pause(5);
        }
    };
    const move = async (): Promise<void> => {
      for (let i = 0; i < options.moves; i++) {
        const due = began + ((i + 0.5) / options.moves) * options.seconds * 1_000;
        await pause(Math.max(0, due - performance.now()));
        // the next gateway refuses a move of what it has not heard of yet; on a machine that is busy with other things that may take longer than the gap
        await everywhere(moves.at(-1)?.stage);
        const to = WAY[i % WAY.length]!;
        const called = performance.now();
        const response = await fetch(`${gateways[i % gateways.length]!.admin}/api/v1/contexts/${CONTEXT}/stage`, {
          method: 'PUT',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ ...to, reason: 'to and fro under load' }),
        });
        if (response.status === 200) moves.push({ stage: to.stage, called, answered: performance.now() });
        else blame(`move ${i} to ${to.stage}: ${response.status} ${(await response.text()).slice(0, 300)}`);
        if (i % 50 === 49) options.say(`${i + 1} moves, ${requests} requests, ${lost + resets} of them without an answer`);
      }
    };
    await Promise.all([load(), move()]);
    agent.destroy();

    const seen = async (side: keyof typeof sides): Promise<{ asked: [string, number][]; copied: [string, number][] }> =>
      (await (await fetch(`${sides[side].urls.upstream}/seen`)).json()) as { asked: [string, number][]; copied: [string, number][] };
    const [legacy, extracted] = [await seen('legacy'), await seen('extracted')];
    const asked = new Map<string, number>();
    for (const [id, times] of [...legacy.asked, ...extracted.asked]) asked.set(id, (asked.get(id) ?? 0) + times);
    const bySide = { legacy: new Set(legacy.asked.map(([id]) => id)), extracted: new Set(extracted.asked.map(([id]) => id)) };
    let torn = 0;
    for (const { id, stage, side } of served) {
      const holds = ALLOWED[stage]?.includes(side) === true && bySide[side as keyof typeof bySide]?.has(id) === true;
      if (holds) continue;
      torn++;
      blame(`${id}: answered by ${side} under ${stage}`);
    }

    served.sort((a, b) => a.begun - b.begun);
    const lags: number[] = [];
    for (const [i, { called, stage }] of moves.entries()) {
      const before = i === 0 ? 'legacy' : moves[i - 1]!.stage;
      const end = moves[i + 1]?.called ?? until;
      // requests that were begun after the call and still met the stage before
      const late = served.filter((one) => one.begun > called && one.begun < end && one.stage === before && before !== stage);
      lags.push(late.length === 0 ? 0 : late.at(-1)!.begun - called);
    }
    lags.sort((a, b) => a - b);
    return {
      requests,
      moves: moves.length,
      lost: lost + [...Array(requests).keys()].filter((i) => !asked.has(`r${i}`)).length,
      resets,
      doubled: [...asked.values()].filter((times) => times > 1).length,
      copiedTwice: [...legacy.copied, ...extracted.copied].filter(([, times]) => times > 1).length,
      torn,
      slowestMoveMs: Math.round(lags.at(-1) ?? 0),
      medianMoveMs: Math.round(lags[Math.floor(lags.length / 2)] ?? 0),
      faults,
    };
  } finally {
    await shop.close();
  }
};
