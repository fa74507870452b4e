import { Agent, request } from 'node:http';
import type { ContextView } from '@banyan/contracts/admin-api.ts';
import { createGateway, type Gateway } from '@banyan/gateway/compose.ts';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { pino } from 'pino';
import { loadConfig } from '../../gateway/config.ts';
import { bucketOf } from '../../gateway/core/bucket.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { promisedBucket } from '../harness/murmur3.ts';
import { type Listening, listenOn } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

/** `BANYAN_IDS=50000 npm test -- contract/bucketing` asks about as many as the acceptance does (a few minutes). */
const IDS = Number(process.env.BANYAN_IDS ?? 1_500);
const SHARE_BP = 1_000;
const REPLICAS = 3;
/** The middle of the ids is asked about before and after the restart. */
const TWICE = Math.floor(IDS / 10);

type Replica = { readonly gateway: Gateway; readonly url: string; readonly admin: string };

const agent = new Agent({ keepAlive: true, maxSockets: 16 });
let database: FreshDatabase;
let sides: Listening[] = [];
let replicas: Replica[] = [];

const start = async (): Promise<Replica> => {
  const context = (name: string, group: string | null): string => `  ${name}:
    group: ${group}
    match: [ { path: "/${name}", methods: [ GET ] } ]
    else: legacy
    extracted: { url: "${sides[1]!.url}" }
    stickyKey: [ "header:x-user-id" ]
    parity: { sample: 0% }
`;
  const loaded = await loadConfig({
    env: {},
    text: `
version: 1
listen: 127.0.0.1:0
admin: { listen: 127.0.0.1:0 }
legacy: { url: "${sides[0]!.url}" }
store: ${database.url}
log: { level: silent }
contexts:
${context('order', null)}${context('basket', 'till')}${context('payment', 'till')}`,
  });
  if (!loaded.ok) throw new Error(loaded.faults.map((fault) => `${fault.path}: ${fault.message}`).join('\n'));
  const gateway = await createGateway({ config: loaded.config, version: '0', log: pino({ level: 'silent' }) });
  const urls = await gateway.start();
  return { gateway, url: urls.gateway, admin: urls.admin };
};

beforeAll(async () => {
  database = await freshDatabase('store');
  sides = await Promise.all(['legacy', 'extracted'].map((name) => listenOn((_req, res) => res.setHeader('x-side', name).end())));
  for (let n = 0; n < REPLICAS; n++) replicas.push(await start());
}, 180_000);
afterAll(async () => {
  agent.destroy();
  await Promise.all(replicas.map(({ gateway }) => gateway.stop()));
  for (const side of sides) await side.stop();
  await database.drop();
}, 180_000);

const ask = (url: string, id: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const req = request(url, { agent, headers: { 'x-user-id': id } }, (res) => {
      res.resume().on('end', () => resolve(String(res.headers['x-side'])));
    });
    req.on('error', reject).end();
  });

/** Moves a context and waits until every replica serves that. */
const canary = async (context: string, percent: number): Promise<void> => {
  const path = `/api/v1/contexts/${context}`;
  const moved = await fetch(`${replicas[0]!.admin}${path}/stage`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ stage: 'canary', percent, reason: 'test', force: true }),
  });
  expect(moved.status).toBe(200);
  for (const { admin } of replicas)
    await until(async () => ((await (await fetch(`${admin}${path}`)).json()) as ContextView).percent === percent, {
      describe: `${percent} % of ${context} everywhere`,
    });
};

/** Sixteen at a time. */
const each = async (from: number, to: number, work: (id: string) => Promise<void>): Promise<void> => {
  let next = from;
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      while (next < to) await work(`id-${next++}`);
    }),
  );
};

it('computes buckets as documented', () => {
  for (let n = 0; n < 5_000; n++)
    for (const key of [String(n), `person.${n}@example.com`, `Ωμέγα-漢字-😀${n}`.slice(n % 7)])
      if (bucketOf('order', key) !== promisedBucket('order', key)) throw new Error(`${key}: ${bucketOf('order', key)}`);
});

it('three gateways, one of them restarted, put every id on one side, the one that an offline computation says', async () => {
  await canary('order', SHARE_BP / 100);
  await canary('basket', SHARE_BP / 100);
  const seen = new Map<string, Set<string>>();
  const wrong: string[] = [];
  let asked = 0;
  const askAbout = async (id: string): Promise<void> => {
    const expected = promisedBucket('order', id) < SHARE_BP ? 'extracted' : 'legacy';
    const own = seen.get(id) ?? new Set();
    seen.set(id, own);
    for (const { url } of replicas) {
      const side = await ask(`${url}/order`, id);
      asked++;
      own.add(side);
      if (side !== expected) wrong.push(`${id} ${side}, expected ${expected}`);
    }
    // a group moves as one: one salt, one share
    const grouped = promisedBucket('till', id) < SHARE_BP ? 'extracted' : 'legacy';
    const [basket, payment] = [await ask(`${replicas[0]!.url}/basket`, id), await ask(`${replicas[1]!.url}/payment`, id)];
    if (basket !== grouped || payment !== grouped) wrong.push(`${id}: basket ${basket}, payment ${payment}, expected ${grouped}`);
  };
  const half = Math.floor(IDS / 2);
  await each(0, half, askAbout);
  await replicas[1]!.gateway.stop();
  replicas = [replicas[0]!, await start(), replicas[2]!];
  await each(half - TWICE, IDS, askAbout);

  expect(wrong).toEqual([]);
  expect([seen.size, asked]).toEqual([IDS, REPLICAS * (IDS + TWICE)]);
  expect([...seen].filter(([, where]) => where.size !== 1).map(([id]) => id)).toEqual([]);
  const members = [...seen.values()].filter((where) => where.has('extracted')).length;
  expect(Math.abs(members - (IDS * SHARE_BP) / 10_000)).toBeLessThanOrEqual(3 * Math.sqrt(IDS * 0.1 * 0.9));
}, 900_000);

it('a share that grows from 0.1 to 100 % takes clients in and never lets one go', async () => {
  const ids = 200;
  let before = new Set<string>();
  for (const percent of [0.1, 1, 5, 10, 20, 50, 100]) {
    await canary('order', percent);
    const members = new Set<string>();
    await each(0, ids, async (id) => {
      if ((await ask(`${replicas[Number(id.slice(3)) % REPLICAS]!.url}/order`, id)) === 'extracted') members.add(id);
    });
    expect([percent, [...before].filter((id) => !members.has(id))]).toEqual([percent, []]);
    expect(members.size).toBe(
      Array.from({ length: ids }, (_, n) => n).filter((n) => promisedBucket('order', `id-${n}`) < percent * 100).length,
    );
    before = members;
  }
  expect(before.size).toBe(ids);
}, 360_000);
