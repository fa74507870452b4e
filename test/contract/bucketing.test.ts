import { Agent, request } from 'node:http';
import { afterAll, expect, it } from '@jest/globals';
import type { ConfigInput } from '../../gateway/config.ts';
import { bucketOf } from '../../gateway/core/bucket.ts';
import { type Banyan, createBanyan } from '../../gateway/embed.ts';
import { type Listening, listenOn } from '../harness/two-sides.ts';

/** `BANYAN_IDS=50000 npm test -- contract/bucketing` asks about as many as the acceptance does (a few minutes). */
const IDS = Number(process.env.BANYAN_IDS ?? 1_500);
const SHARE_BP = 1_000;

const agent = new Agent({ keepAlive: true, maxSockets: 16 });
const stops: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  agent.destroy();
  for (const stop of stops.reverse()) await stop();
});

const ask = (url: string, id: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const req = request(url, { agent, headers: { 'x-user-id': id } }, (res) => {
      res.resume().on('end', () => resolve(String(res.headers['x-side'])));
    });
    req.on('error', reject).end();
  });

it('three gateways, one of them restarted, put every id on one side, the one that its bucket says', async () => {
  const sideOf = async (name: string): Promise<Listening> => {
    const side = await listenOn((_req, res) => res.setHeader('x-side', name).end());
    stops.push(side.stop);
    return side;
  };
  const [legacy, extracted] = [await sideOf('legacy'), await sideOf('extracted')];
  const context = (path: string, group: string | null): NonNullable<ConfigInput['contexts']>[string] => ({
    group,
    match: [{ path, methods: ['GET'] }],
    else: 'legacy',
    extracted: { url: extracted.url },
    stickyKey: ['header:x-user-id'],
    parity: { sample: '0%' },
    stage: 'canary',
    share: '10%',
  });
  const config: ConfigInput = {
    version: 1,
    log: { level: 'silent' },
    legacy: { url: legacy.url },
    contexts: {
      order: context('/orders', null),
      basket: context('/basket', 'till'),
      payment: context('/payment', 'till'),
    },
  };
  const gateways: { banyan: Banyan; front: Listening }[] = [];
  const start = async (): Promise<{ banyan: Banyan; front: Listening }> => {
    const banyan = await createBanyan(config);
    const front = await listenOn((req, res) => banyan.handler(req, res));
    return { banyan, front };
  };
  const stop = async ({ banyan, front }: { banyan: Banyan; front: Listening }): Promise<void> => {
    await front.stop();
    await banyan.close();
  };
  for (let n = 0; n < 3; n++) gateways.push(await start());
  stops.push(() => Promise.all(gateways.map(stop)));

  const wrong: string[] = [];
  let members = 0;
  let next = 0;
  const askAll = async (until: number): Promise<void> => {
    const worker = async (): Promise<void> => {
      while (next < until) {
        const id = `id-${next++}`;
        const bucket = bucketOf('order', id);
        const expected = bucket < SHARE_BP ? 'extracted' : 'legacy';
        if (bucket < SHARE_BP) members++;
        for (const { front } of gateways) {
          const side = await ask(`${front.url}/orders`, id);
          if (side !== expected) wrong.push(`${id} ${side}, expected ${expected}`);
        }
        const [basket, payment] = [await ask(`${gateways[0]!.front.url}/basket`, id), await ask(`${gateways[1]!.front.url}/payment`, id)];
        const grouped = bucketOf('till', id) < SHARE_BP ? 'extracted' : 'legacy';
        if (basket !== grouped || payment !== grouped) wrong.push(`${id}: basket ${basket}, payment ${payment}, expected ${grouped}`);
      }
    };
    await Promise.all(Array.from({ length: 16 }, worker));
  };
  await askAll(IDS / 2);
  await stop(gateways[1]!);
  gateways[1] = await start();
  // those of the first half once more, and then the second
  const earlier = next;
  next = Math.max(0, earlier - Math.floor(IDS / 10));
  members -= Array.from({ length: earlier - next }, (_, n) => bucketOf('order', `id-${next + n}`)).filter(
    (bucket) => bucket < SHARE_BP,
  ).length;
  await askAll(IDS);
  expect(wrong).toEqual([]);
  expect(next).toBeGreaterThanOrEqual(IDS);
  expect(Math.abs(members - next / 10)).toBeLessThanOrEqual(3 * Math.sqrt(next * 0.1 * 0.9));
}, 600_000);
