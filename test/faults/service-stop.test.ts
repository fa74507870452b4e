import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { startStream } from '../contract/kit-fixtures.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { run } from '../harness/processes.ts';
import { type TcpSwitch, tcpSwitch, throughPort } from '../harness/tcp-switch.ts';
import { until } from '../harness/wait.ts';

/** A service is told to stop after its database went away, as happens when a machine goes down: it must end, whatever its database does. */

let store: FreshDatabase;
let stream: Awaited<ReturnType<typeof startStream>>;
let hop: TcpSwitch;

beforeAll(async () => {
  [store, stream] = await Promise.all([freshDatabase('store'), startStream(4)]);
  const { hostname, port } = new URL(store.url);
  hop = await tcpSwitch({ host: hostname, port: Number(port) });
});
afterAll(async () => {
  await hop.stop();
  await stream.stop();
  await store.drop();
});

const start = async (name: string) => {
  const service = run('extracted-services/run.ts', [name], {
    env: {
      HOST: undefined,
      PORT: '0',
      DATABASE_URL: throughPort(store.url, hop.port),
      KINESIS_ENDPOINT: stream.url,
      BANYAN_STREAM: stream.stream,
      ADAPTER_URL: 'http://127.0.0.1:1',
    },
  });
  const url = (await service.ready())[name]!;
  const ready = async (): Promise<boolean> => (await fetch(`${url}/readyz`, { headers: { connection: 'close' } })).ok;
  await until(ready, { describe: `${name} to be ready` });
  return { service, ready, url };
};

it.each(['notification', 'inventory', 'order'])(
  '%s ends in good order after its database died',
  async (name) => {
    const { service, ready } = await start(name);
    hop.cut();
    try {
      await until(async () => !(await ready()), { describe: `${name} to notice`, timeoutMs: 25_000 });
      expect(await service.stop('SIGTERM', 15_000)).toEqual({ code: 0, signal: null });
    } finally {
      await hop.heal();
    }
  },
  60_000,
);

it('breaks off after 10 s, with a line, when its database hangs', async () => {
  const { service, url } = await start('notification');
  hop.hang();
  try {
    // between two questions a stop needs no answer: it must come while one is out
    const asked = fetch(`${url}/api/mails`).catch(() => undefined);
    await until(() => hop.swallowed() > 0, { describe: 'a question that nobody answers' });
    const { code } = await service.stop('SIGTERM', 15_000);
    expect([code, service.stderr]).toEqual([1, ['notification: not stopped after 10 s: broken off']]);
    await asked;
  } finally {
    hop.cut();
    await hop.heal();
  }
}, 180_000);

it('ends although nobody reads its log any more', async () => {
  const { service } = await start('inventory');
  service.deafen();
  hop.cut();
  try {
    expect(await service.stop('SIGTERM', 15_000)).toEqual({ code: 0, signal: null });
  } finally {
    await hop.heal();
  }
}, 180_000);
