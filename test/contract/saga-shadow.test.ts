import { type Consumer, requestReplay, startConsumer } from '@banyan/kit/consumer.ts';
import type { Handler } from '@banyan/kit/handlers.ts';
import { type Migration, migrateSchema } from '@banyan/kit/schema.ts';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { handlers as mailHandlers } from '../../extracted-services/notification/consumer.ts';
import { migrations as mailMigrations } from '../../extracted-services/notification/store.ts';
import { paymentService } from '../../extracted-services/payment/compose.ts';
import { createHttpProvider } from '../../extracted-services/payment/provider.ts';
import { handlers as sagaHandlers } from '../../extracted-services/saga/consumer.ts';
import { migrations as sagaMigrations } from '../../extracted-services/saga/store.ts';
import { shippingService } from '../../extracted-services/shipping/compose.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { fact, openStore, publish, silent, startStream } from './kit-fixtures.ts';

let database: FreshDatabase;
let db: Knex;
let stream: Awaited<ReturnType<typeof startStream>>;
const consumers: Consumer[] = [];

const readers: readonly [name: string, migrations: readonly Migration[], handlers: readonly Handler[]][] = [
  ['notification', mailMigrations, mailHandlers],
  ['saga', sagaMigrations, sagaHandlers(() => undefined)],
];
const startAll = async (): Promise<void> => {
  for (const [name, migrations, handlers] of readers) {
    await migrateSchema(db, `svc_${name}`, migrations);
    consumers.push(
      startConsumer({
        kinesis: stream.kinesis,
        stream: stream.stream,
        consumer: name,
        db,
        schema: `svc_${name}`,
        handlers,
        log: silent,
        pollMs: 20,
      }),
    );
  }
};
const stopAll = () => Promise.all(consumers.splice(0).map((consumer) => consumer.stop()));
const effects = async (): Promise<Record<string, number>> => {
  const count = async (table: string): Promise<number> => Number(((await db(table).count('* as n').first()) as { n: string }).n);
  return {
    mails: await count('svc_notification.mail'),
    sagas: await count('svc_saga.saga'),
    payments: await count('svc_payment.saga_command'),
    parcels: await count('svc_shipping.shipment'),
  };
};
const NONE = { mails: 0, sagas: 0, payments: 0, parcels: 0 };
const seen = (facts: number) =>
  until(async () => Number(((await db('svc_saga.inbox').count('* as n').first()) as { n: string }).n) >= facts, {
    describe: 'the saga service to see all',
  });
const customers = (orders: number) =>
  until(async () => Number(((await db('svc_notification.customer').count('* as n').first()) as { n: string }).n) >= orders, {
    describe: 'the notification service to see all',
  });

beforeAll(async () => {
  database = await freshDatabase('empty');
  db = openStore(database.url);
  stream = await startStream();
  const payment = paymentService(createHttpProvider({ url: 'http://127.0.0.1:1', timeoutMs: 100 }));
  await migrateSchema(db, payment.schema, payment.migrations);
  await migrateSchema(db, shippingService.schema, shippingService.migrations);
});
afterAll(async () => {
  await stopAll();
  await stream.stop();
  await db.destroy();
  await database.drop();
});

it('100 orders that legacy executed pay, mail and ship nothing in shadow, nor when everything is read again at cutover; one of the extracted side does', async () => {
  const order = (id: number, origin: 'legacy' | 'extracted') =>
    fact('order.placed.v1', String(id), { id, userId: 'u', items: [{ productId: 1, quantity: 1 }], total: 5, currency: 'EUR' }, { origin });
  await startAll();
  await publish(
    stream,
    Array.from({ length: 100 }, (_, i) => order(i + 1, 'legacy')),
  );
  await Promise.all([seen(100), customers(100)]);
  expect(await effects()).toEqual(NONE);

  await stopAll();
  for (const [name] of readers) await requestReplay(db, `svc_${name}`, name);
  await db('svc_notification.customer').delete();
  await startAll();
  await customers(100);
  expect(await effects()).toEqual(NONE);

  await publish(stream, [order(101, 'extracted')]);
  await until(async () => (await effects()).sagas === 1 && (await effects()).mails === 1, { describe: 'the news of the extracted side' });
  expect(await effects()).toEqual({ ...NONE, mails: 1, sagas: 1 });
});
