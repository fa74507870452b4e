import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { run } from '../harness/processes.ts';
import { get, type Listening, listenOn, openTwoSides } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

/** Answers over 64 KiB are compared in a thread, wherever the gateway runs: in workers, embedded. */

const list = (price: string): string =>
  `{"items":[${Array.from({ length: 6_000 }, (_, i) => `{"id":${i},"price":${i === 42 ? price : '1.00'}}`)}]}`;

type Kept = { verdict: string; differences: { path: string }[]; legacy: { body: string; bytes: number } };

/** The one pair that was kept, in full. */
const kept = (admin: string): Promise<Kept> =>
  until(
    async () => {
      const { items } = JSON.parse((await get(`${admin}/api/v1/pairs?context=order`)).body) as { items: { id: string }[] };
      return items[0] ? (JSON.parse((await get(`${admin}/api/v1/pairs/${items[0].id}`)).body) as Kept) : null;
    },
    { describe: 'the pair', timeoutMs: 30_000 },
  );
const EXPECTED = { verdict: 'mismatch', differences: [{ path: '$.items[42].price', legacy: 1.5, extracted: 1.25 }] };

let folder: string;
let legacy: Listening;
let extracted: Listening;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan large-'));
  const answering = (price: string): Promise<Listening> =>
    listenOn((_req, res) => void res.writeHead(200, { 'content-type': 'application/json' }).end(list(price)));
  [legacy, extracted] = await Promise.all([answering('1.5'), answering('1.25')]);
});
afterAll(async () => {
  await Promise.all([legacy.stop(), extracted.stop()]);
  await rm(folder, { recursive: true, force: true });
});

describe('large answers', () => {
  it('are compared in a thread of each worker, which ends with it', async () => {
    const file = join(folder, 'banyan.yaml');
    await writeFile(
      file,
      `version: 1\nlisten: 127.0.0.1:0\nadmin: { listen: "127.0.0.1:0" }\nlegacy: { url: "${legacy.url}" }\n` +
        `contexts: { order: { match: [ { path: /o, methods: [ GET ] } ], else: legacy, extracted: { url: "${extracted.url}" }, ` +
        'stage: shadow, parity: { sample: 100%, compare: 100% } } }\n',
    );
    const banyan = run('gateway/cli/main.ts', ['run', '--config', file, '--workers', '1'], { cwd: folder });
    try {
      const { gateway: url, admin } = await banyan.ready();
      expect((await get(`${url}/o`)).body).toBe(list('1.5'));
      expect(await kept(admin!)).toMatchObject(EXPECTED);
    } finally {
      expect(await banyan.stop()).toEqual({ code: 0, signal: null });
    }
  });

  it('are compared in a thread where the gateway is embedded', async () => {
    const rig = await openTwoSides({ stage: 'shadow', parity: { sample: '100%', compare: '100%' } });
    for (const [side, price] of [
      [rig.legacy, '1.5'],
      [rig.extracted, '1.25'],
    ] as const)
      side.answer = (_req, res) => {
        res.removeHeader('x-side');
        res.writeHead(200, { 'content-type': 'application/json' }).end(list(price));
        return true;
      };
    const admin = createServer(rig.banyan.admin);
    await new Promise<void>((resolve) => void admin.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = admin.address() as { port: number };
      expect((await get(`${rig.url}/api/orders/1`)).status).toBe(200);
      expect(await kept(`http://127.0.0.1:${port}`)).toMatchObject(EXPECTED);
    } finally {
      admin.closeAllConnections();
      admin.close();
      await rig.stop();
    }
  });
});
