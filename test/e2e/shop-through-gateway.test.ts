import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CreateStreamCommand } from '@aws-sdk/client-kinesis';
import { startKinesis } from '@banyan/dev-kinesis/emulator.ts';
import { type Monolith, startMonolith } from '@banyan/dev-monolith/monolith.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { freshDatabase } from '../harness/database.ts';
import { writeDemoConfig } from '../harness/demo-config.ts';
import { clientOf, endAll } from '../harness/kinesis-client.ts';
import { freePort } from '../harness/ports.ts';
import { type Running, run } from '../harness/processes.ts';
import { type RawMessage, rawConnect, valuesOf } from '../harness/raw-http.ts';
import { describeShopApi } from '../harness/shop-api-suite.ts';
import { describeShopPages } from '../harness/shop-pages-suite.ts';

let folder: string;
const closing: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'banyan front-'));
});
afterAll(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  await endAll();
  await rm(folder, { recursive: true, force: true });
}, 180_000);

const startShop = async (): Promise<Monolith> => {
  const database = await freshDatabase('empty');
  closing.push(() => database.drop());
  const shop = await startMonolith({ databaseUrl: database.url, port: 0 });
  closing.push(() => shop.stop());
  return shop;
};

const startGateway = async (args: string[]): Promise<{ process: Running; url: string }> => {
  const started = run('gateway/cli/main.ts', ['run', ...args], {
    cwd: folder,
    env: { DATABASE_URL: undefined, BANYAN_SEAL_KEY: undefined },
  });
  closing.push(async () => expect(await started.stop()).toEqual({ code: 0, signal: null }));
  return { process: started, url: (await started.ready()).gateway! };
};

const ask = async (url: string, request: string, head = false): Promise<RawMessage> => {
  const connection = await rawConnect(Number(new URL(url).port));
  connection.write(`${request}\r\nHost: shop.example\r\nX-User-Id: user-7\r\nConnection: close\r\n\r\n`);
  const answer = await connection.answer({ head });
  connection.destroy();
  return answer;
};

/** What belongs to one hop, or to the moment. */
const OWN = new Set(['via', 'date', 'connection', 'keep-alive', 'banyan-route']);
const passed = (message: RawMessage): unknown => ({
  line: message.line,
  fields: message.fields.filter(([name]) => !OWN.has(name.toLowerCase())),
  body: message.body.toString('base64'),
});

/** Everything the shop is tested for, and that its answers are the monolith's own, byte for byte, but for `Via` and what the gateway adds on request. */
const describeFront = (front: () => { shop: string; url: string }, contexts: boolean): void => {
  // first, while the orders are those from before
  describeShopApi(() => ({ url: front().url, ledgered: contexts }));
  describeShopPages(() => front().url);

  it.each([
    [null, 'GET / HTTP/1.1'],
    [null, 'HEAD / HTTP/1.1'],
    [null, 'GET /old-catalog HTTP/1.1'],
    [null, 'GET /account HTTP/1.1'],
    [null, 'GET /nowhere?a=1&&b=%zz HTTP/1.1'],
    [null, 'GET //assets/../assets/shop.css HTTP/1.1'],
    [null, 'GET /assets/banner.bin HTTP/1.1\r\nRange: bytes=5-99'],
    [null, 'HEAD /assets/banner.bin HTTP/1.1'],
    [null, 'POST /login HTTP/1.1\r\nContent-Length: 0'],
    ['inventory', 'GET /api/products HTTP/1.1'],
    ['inventory', 'HEAD /api/products/8 HTTP/1.1'],
    ['order', 'GET /api/orders/1003 HTTP/1.1'],
    ['order', 'GET /api/orders?userId=user-1 HTTP/1.1'],
    ['order', 'POST /api/orders/1001/cancel HTTP/1.1\r\nContent-Length: 0'],
    // a path that cannot be decoded and methods that no route names are legacy's
    [null, 'GET /api/orders/%zz HTTP/1.1'],
    [null, 'OPTIONS /api/orders HTTP/1.1'],
    [null, 'DELETE /api/orders/1003 HTTP/1.1'],
  ])('is the monolith to (%s) %j', async (context, request) => {
    const head = request.startsWith('HEAD');
    const direct = await ask(front().shop, request, head);
    const through = await ask(front().url, request, head);
    expect(passed(through)).toEqual(passed(direct));
    expect(valuesOf(direct, 'via')).toEqual([]);
    expect(valuesOf(through, 'via')).toEqual(['1.1 banyan']);
    expect(valuesOf(through, 'banyan-route')).toEqual(
      contexts && context !== null ? [`${context};upstream=legacy;reason=STAGE;stage=legacy`] : [],
    );
  });
};

describe('behind `banyan run --legacy URL` alone', () => {
  const front = { shop: '', url: '' };
  beforeAll(async () => {
    front.shop = (await startShop()).url;
    front.url = (await startGateway(['--legacy', front.shop, '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'])).url;
  }, 180_000);
  describeFront(() => front, false);
});

describe('behind a gateway with store, stream and the demo’s contexts at legacy', () => {
  const front = { shop: '', url: '' };
  beforeAll(async () => {
    front.shop = (await startShop()).url;
    const store = await freshDatabase('store');
    closing.push(() => store.drop());
    const kinesis = await startKinesis({ limits: { throttle: false } });
    closing.push(() => kinesis.stop());
    await clientOf(kinesis.url).send(new CreateStreamCommand({ StreamName: 'domain-events', ShardCount: 1 }));
    const file = join(folder, 'banyan.yaml');
    await writeDemoConfig(file, {
      listen: '127.0.0.1:0',
      'admin.listen': '127.0.0.1:0',
      'legacy.url': front.shop,
      store: store.url,
      'streams.endpoint': kinesis.url,
      // nobody asks them at this stage
      'contexts.order.extracted.url': `http://127.0.0.1:${await freePort()}`,
      'contexts.inventory.extracted.url': `http://127.0.0.1:${await freePort()}`,
    });
    front.url = (await startGateway(['--config', file])).url;
  }, 180_000);
  describeFront(() => front, true);
});
