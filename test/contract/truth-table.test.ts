import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Stage, Upstream } from '@banyan/contracts/vocabulary.ts';
import { compileLive, type LiveParts } from '@banyan/gateway/live.ts';
import { createPipeline } from '@banyan/gateway/pipeline.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import { loadConfig } from '../../gateway/config.ts';
import { bucketOf } from '../../gateway/core/bucket.ts';
import type { ContextFlag } from '../../gateway/core/decide.ts';
import type { Flags } from '../../gateway/flags/flags.ts';
import { createPins } from '../../gateway/flags/pins.ts';
import { freePort } from '../harness/ports.ts';
import { repository } from '../harness/processes.ts';
import { type Got, get, type Listening, listenOn } from '../harness/two-sides.ts';

/**
 * Who answers whom, as one table, over real sockets: the one in docs/control.md, which says what its cells mean. The columns are what the extracted
 * service does; legacy answers all it is asked. `in` and `out` are clients within and without the canary share.
 */
const TABLE = /```text\n(stage [\s\S]*?)```/.exec(readFileSync(join(repository, 'docs/control.md'), 'utf8'))?.[1] ?? '';

const STAGES = ['legacy', 'shadow', 'canary', 'cutover', 'retired'] as const satisfies readonly Stage[];
const OPERATIONS = ['query', 'command'] as const;
const DOES = ['ok', '4xx', '5xx', 'time-out', 'refused', 'open'] as const;
const CLIENTS = ['in', 'out'] as const;
const PINNED = ['no', 'extracted', 'legacy'] as const;
type Does = (typeof DOES)[number];
type Case = {
  readonly stage: Stage;
  readonly operation: (typeof OPERATIONS)[number];
  readonly client: (typeof CLIENTS)[number];
  readonly killed: boolean;
  readonly pinned: (typeof PINNED)[number];
  readonly does: Does;
};

const ROWS = TABLE.trim()
  .split('\n')
  .slice(1)
  .map((line) => {
    const [given = '', cells = ''] = line.split('|');
    return { given: given.trim().split(/ +/), cells: cells.trim().split(/ {2,}/) };
  });

const fits = (word: string | undefined, value: string): boolean => word === 'any' || word === value;

/** Exactly one row must speak of every case: nothing is left open, nothing said twice. */
const expectedOf = ({ stage, operation, client, killed, pinned, does }: Case): string => {
  const values = [stage, operation, client, killed ? 'yes' : 'no', pinned];
  const rows = ROWS.filter(({ given }) => values.every((value, i) => fits(given[i], value)));
  if (rows.length !== 1) throw new Error(`${rows.length} rows speak of ${values.join(' ')}`);
  return rows[0]!.cells[DOES.indexOf(does)]!;
};

const SHARE_BP = 5_000;
const contextOf = (does: Does): string => `does-${does}`;

let legacy: Listening;
let extracted: Listening;
let front: Listening;
let live: LiveParts;
const flags = new Map<string, ContextFlag>();
/** Which sides saw a request, by its number. */
const seen = new Map<string, string>();
const unanswered: { end(): void }[] = [];
const pins = createPins({ db: null, listener: null, secret: 'test', now: () => performance.now(), log: pino({ level: 'silent' }) });

const answerOf = (does: Does, created: boolean): number | null =>
  ({ ok: created ? 201 : 200, '4xx': 404, '5xx': 500, 'time-out': null, refused: 200, open: 500 })[does];

beforeAll(async () => {
  const side = (letter: 'L' | 'E'): Promise<Listening> =>
    listenOn((req, res) => {
      const n = String(req.headers['x-number']);
      seen.set(n, `${seen.get(n) ?? ''}${letter}`);
      req.resume().on('end', () => {
        const does = letter === 'L' ? 'ok' : ((req.url ?? '').split('/')[1]!.replace('does-', '') as Does);
        const status = answerOf(does, req.method === 'POST');
        if (status === null) unanswered.push(res);
        else res.writeHead(status).end(letter);
      });
    });
  [legacy, extracted] = await Promise.all([side('L'), side('E')]);
  const nobody = `http://127.0.0.1:${await freePort()}`;
  const loaded = await loadConfig({
    env: {},
    text: `
version: 1
legacy: { url: "${legacy.url}" }
debugHeaders: true
contexts:
${DOES.map(
  (does) => `  ${contextOf(does)}:
    match: [ { path: "/${contextOf(does)}/**", methods: [ GET, POST ] } ]
    else: legacy
    extracted: { url: "${does === 'refused' ? nobody : extracted.url}", timeouts: { response: ${does === 'time-out' ? '100ms' : '60s'} } }
    stickyKey: [ "header:x-user-id" ]
    parity: { sample: 0% }
    breaker: { volumeThreshold: ${does === 'open' ? 1 : 100000}, resetTimeoutMs: 600000 }
`,
).join('')}`,
  });
  if (!loaded.ok) throw new Error(loaded.faults.map((fault) => `${fault.path}: ${fault.message}`).join('\n'));
  const log = pino({ level: 'silent' });
  live = compileLive(loaded.config, null, log, null);
  const handle = createPipeline({
    live: () => live,
    // the store's part is tested elsewhere; the table is about what a request meets under a given flag
    flags: { current: (name: string) => flags.get(name), ageMs: () => 0 } as Flags,
    writer: null,
    pins,
    stale: () => false,
    shadow: { offer: () => undefined, wants: () => false, created: () => undefined, dryRun: () => null, makesDryRuns: () => false },
    journal: { note: () => undefined },
    now: () => performance.now(),
  });
  front = await listenOn((req, res) => void handle(req, res));
});
afterAll(async () => {
  for (const res of unanswered) res.end();
  await front.stop();
  await live.retire(null);
  await Promise.all([legacy.stop(), extracted.stop()]);
});

const setFlags = (stage: Stage, killed: boolean): void => {
  const owner: Upstream = stage === 'cutover' || stage === 'retired' ? 'extracted' : 'legacy';
  for (const does of DOES)
    flags.set(contextOf(does), {
      name: contextOf(does),
      group: null,
      stage,
      canaryShareBp: stage === 'canary' ? SHARE_BP : owner === 'extracted' ? 10_000 : 0,
      killed,
      frozen: false,
      owner,
      epoch: 1,
      version: 1,
    });
};

let number = 0;
/** A client of its own for every case, in or out of the share. */
const clientOf = (context: string, inside: boolean): string => {
  for (;;) {
    const id = `user-${++number}`;
    if (bucketOf(context, id) < SHARE_BP === inside) return id;
  }
};

const whyOf = ({ headers, body }: Got): string => {
  const route = /reason=(\w+)/.exec(String(headers['banyan-route'] ?? ''))?.[1];
  return route ?? (JSON.parse(body) as { code: string }).code;
};

const play = async (one: Case): Promise<string> => {
  const context = contextOf(one.does);
  const id = clientOf(context, one.client === 'in');
  if (one.pinned !== 'no') pins.set(context, id, one.pinned, 600_000, false);
  const n = String(++number);
  const got = await get(
    `${front.url}/${context}/1`,
    { 'x-user-id': id, 'x-number': n, connection: 'close' },
    one.operation === 'query' ? 'GET' : 'POST',
  );
  const sides = seen.get(n) ?? '-';
  // a repeat is invited where nothing was sent, and nowhere else
  if (got.status >= 500) expect([n, got.headers['retry-after'] !== undefined]).toEqual([n, sides === '-']);
  return `${sides} ${got.status} ${whyOf(got)}`;
};

describe('stage x operation x what the service does x killed x pinned', () => {
  it('opens the breaker of the one that is to be found open', async () => {
    setFlags('canary', false);
    const first: Case = { stage: 'canary', operation: 'query', client: 'in', killed: false, pinned: 'no', does: 'open' };
    expect(await play(first)).toBe('EL 200 ERROR');
    expect([...live.breakers].filter(([, { state }]) => state === 'open').map(([name]) => name)).toEqual([contextOf('open')]);
  });

  it.each(STAGES.flatMap((stage) => [false, true].map((killed) => ({ stage, killed }))))(
    'is as the table says at $stage, killed: $killed',
    async ({ stage, killed }) => {
      setFlags(stage, killed);
      const cases = OPERATIONS.flatMap((operation) =>
        CLIENTS.flatMap((client) =>
          PINNED.flatMap((pinned) => DOES.map((does): Case => ({ stage, operation, client, killed, pinned, does }))),
        ),
      );
      const label = (one: Case): string => `${one.operation} ${one.client} pinned:${one.pinned} ${one.does}`;
      const results = await Promise.all(cases.map(async (one) => `${label(one)}: ${await play(one)}`));
      expect(results).toEqual(cases.map((one) => `${label(one)}: ${expectedOf(one)}`));
      expect(results).toHaveLength(72);
    },
    60_000,
  );
});

describe('legacy, where it answers for the service', () => {
  it('passes its own failure on, without another try', async () => {
    setFlags('canary', false);
    const ill = await listenOn((req, res) => {
      req.resume();
      res.writeHead(503, { 'x-own': 'yes' }).end();
    });
    const before = live;
    const config = { ...live.config, legacy: { ...live.config.legacy, urls: [ill.url] } };
    live = compileLive(config, before, pino({ level: 'silent' }), null);
    try {
      const got = await get(`${front.url}/${contextOf('5xx')}/1`, {
        'x-user-id': clientOf(contextOf('5xx'), true),
        'x-number': 'last',
        connection: 'close',
      });
      expect([got.status, got.headers['x-own'], seen.get('last')]).toEqual([503, 'yes', 'E']);
    } finally {
      const used = live;
      live = compileLive(before.config, used, pino({ level: 'silent' }), null);
      await used.retire(live);
      await ill.stop();
    }
  });
});
