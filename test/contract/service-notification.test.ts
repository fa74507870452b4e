import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { type Running, repository, run } from '../harness/processes.ts';
import { until } from '../harness/wait.ts';
import { fact, openStore, publish, startStream } from './kit-fixtures.ts';

let database: FreshDatabase;
let db: Knex;
let stream: Awaited<ReturnType<typeof startStream>>;

beforeAll(async () => {
  [database, stream] = await Promise.all([freshDatabase('store'), startStream()]);
  db = openStore(database.url);
});
afterAll(async () => {
  await stream.stop();
  await db.destroy();
  await database.drop();
});

const start = async (args: readonly string[] = [], env: Record<string, string> = {}): Promise<{ child: Running; url: string }> => {
  const child = run('extracted-services/run.ts', ['notification', ...args], {
    env: {
      PORT: '0',
      DATABASE_URL: database.url,
      KINESIS_ENDPOINT: stream.url,
      BANYAN_STREAM: stream.stream,
      POLL_MS: '20',
      LEASE_MS: '500',
      ...env,
    },
  });
  return { child, url: (await child.ready()).notification! };
};
const order = (id: number, origin: 'legacy' | 'extracted') =>
  fact('order.placed.v1', String(id), { id, userId: `user-${id}`, items: [{ productId: 1, quantity: 1 }] }, { origin });
const mails = async (): Promise<{ order_id: string; subject: string }[]> =>
  db('svc_notification.mail').select<{ order_id: string; subject: string }[]>('order_id', 'subject');
const seen = (count: number) =>
  until(async () => Number((await db('svc_notification.inbox').count<[{ count: string }]>())[0]!.count) >= count, {
    describe: `${count} facts to be seen`,
    timeoutMs: 20_000,
  });

it('writes nobody about what legacy did, and one mail per order and event about the rest, over kills, restarts and a replay', async () => {
  let service = await start();
  await publish(
    stream,
    Array.from({ length: 100 }, (_, index) => order(index + 1, 'legacy')),
  );
  await seen(100);
  expect(await mails()).toEqual([]);

  const news = Array.from({ length: 40 }, (_, index) => order(index + 1001, 'extracted'));
  for (let round = 0; round < 4; round += 1) {
    const batch = news.slice(round * 10, round * 10 + 10);
    await publish(stream, [...batch, ...batch]);
    // somewhere in the batch: before, within or after its transaction
    await until(async () => (await mails()).length > round * 10 - 5, { describe: 'some mails' });
    await service.child.stop('SIGKILL');
    await publish(stream, batch);
    service = await start();
  }
  const cancelled = fact('order.cancelled.v1', '1001', { id: 1001 }, { origin: 'extracted', sequence: 2 });
  await publish(stream, [cancelled, cancelled]);
  await seen(141);
  const expected = [...news.map((each) => `Your order ${each.subject} has been received`), 'Your order 1001 has been cancelled'].sort();
  expect((await mails()).map((mail) => mail.subject).sort()).toEqual(expected);

  const answer = await fetch(`${service.url}/api/mails?orderId=1001`, { headers: { connection: 'close' } });
  expect(await answer.json()).toEqual([
    expect.objectContaining({ to: 'user-1001', subject: 'Your order 1001 has been received', orderId: '1001', factId: news[0]!.id }),
    expect.objectContaining({ to: 'user-1001', subject: 'Your order 1001 has been cancelled', factId: cancelled.id }),
  ]);
  expect(await service.child.stop()).toEqual({ code: 0, signal: null });

  service = await start(['--replay']);
  await service.child.line(/reading the stream again from its beginning/);
  await publish(stream, [order(2001, 'extracted')]);
  await seen(142);
  expect((await mails()).map((mail) => mail.subject).sort()).toEqual([...expected, 'Your order 2001 has been received'].sort());
  expect(await service.child.stop('SIGINT')).toEqual({ code: 0, signal: null });
}, 180_000);

it('says in one line why it cannot start', async () => {
  const cases: [string[], Record<string, string | undefined>, RegExp][] = [
    [['cart'], {}, /^service: there is no service "cart"; there are inventory, notification, order, payment, saga, shipping$/],
    [[], {}, /^service: no name given; there are inventory, notification, order, payment, saga, shipping$/],
    [['order', '--fast'], {}, /^order: Unknown option '--fast'/],
    [['order'], { DATABASE_URL: undefined, PORT: 'x' }, /^order: PORT: expected a whole number from 0 to 65535; DATABASE_URL is not set$/],
    [
      ['order'],
      { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/x', PORT: '0' },
      /^order: cannot reach the database: connect ECONNREFUSED 127\.0\.0\.1:1$/,
    ],
    [
      ['notification'],
      { DATABASE_URL: database.url, PORT: new URL(stream.url).port },
      /^notification: cannot listen on 127\.0\.0\.1:\d+: listen EADDRINUSE/,
    ],
  ];
  await Promise.all(
    cases.map(async ([args, env, line]) => {
      const child = run('extracted-services/run.ts', args, { env });
      expect(await child.exited).toEqual({ code: 2, signal: null });
      expect(child.stderr.filter((text) => !/Warning|--trace-warnings/.test(text))).toEqual([expect.stringMatching(line)]);
    }),
  );
  const help = run('extracted-services/run.ts', ['--help']);
  expect(await help.exited).toEqual({ code: 0, signal: null });
  const own = run('extracted-services/run.ts', ['order', '--help']);
  expect(await own.exited).toEqual({ code: 0, signal: null });
  expect(own.stdout.join('\n')).toContain('npm run service -- order [--replay] [--replay-from TIME]');
});

it('ends although nobody reads its log any more', async () => {
  const child = spawn(process.execPath, [join(repository, 'extracted-services/run.ts'), 'notification'], {
    stdio: ['ignore', 'pipe', 'ignore', 'ipc'],
    env: {
      ...process.env,
      NODE_OPTIONS: '',
      PORT: '0',
      DATABASE_URL: database.url,
      KINESIS_ENDPOINT: stream.url,
      BANYAN_STREAM: stream.stream,
    },
  });
  await once(child, 'message');
  child.stdout?.destroy();
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const [code] = await Promise.race([ended, pause(15_000, ['still running after 15 s'], { ref: false })]);
  child.kill('SIGKILL');
  expect(code).toBe(0);
}, 90_000);

it('ends while it still waits for its stream', async () => {
  const child = run('extracted-services/run.ts', ['notification'], {
    env: { PORT: '0', DATABASE_URL: database.url, KINESIS_ENDPOINT: stream.url, BANYAN_STREAM: 'not-there' },
  });
  await child.line(/waiting for the stream not-there/);
  expect(await child.stop()).toEqual({ code: 0, signal: null });
});
