import { type Moods, type Provider, startProvider } from '@banyan/dev-payment-provider/provider.ts';
import { type Service, startService } from '@banyan/kit/service.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { paymentService } from '../../extracted-services/payment/compose.ts';
import { createHttpProvider } from '../../extracted-services/payment/provider.ts';
import { shippingService } from '../../extracted-services/shipping/compose.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { configFor, silent } from './kit-fixtures.ts';

/** Payment and shipping alone, over HTTP, as the saga meets them. */

const TOKEN = 'token-of-the-services';
const CALM: Moods = { fail: 0, failAfter: 0, hang: 0, late: 0, lateMs: 1000, refuse: 0 };

let database: FreshDatabase;
let provider: Provider;
let payment: Service;
let shipping: Service;

beforeAll(async () => {
  database = await freshDatabase('empty');
  // neither reads a stream
  const config = configFor(database.url, { url: 'http://127.0.0.1:1', stream: 'none' }, { BANYAN_SERVICE_TOKEN: TOKEN });
  provider = await startProvider();
  payment = await startService(paymentService(createHttpProvider({ url: provider.url, timeoutMs: 1500 })), config, { log: silent });
  shipping = await startService(shippingService, config, { log: silent });
}, 60_000);
afterAll(async () => {
  await payment?.stop();
  await shipping?.stop();
  await provider?.stop();
  await database?.drop();
});

type Answer = { status: number; body: { outcome?: string; why?: string } };
const saga =
  (service: () => Service, action: string) =>
  async (method: 'PUT' | 'GET' | 'DELETE', id: string, data: object = {}, token = TOKEN): Promise<Answer> => {
    const answer = await fetch(`${service().url}/_saga/${id}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(method === 'GET' ? {} : { body: JSON.stringify({ action, saga: `saga-of-${id}`, data }) }),
    });
    return { status: answer.status, body: (await answer.json()) as Answer['body'] };
  };
const is = (outcome: string) => ({ status: 200, body: expect.objectContaining({ outcome }) });

describe('shipping', () => {
  const ship = saga(() => shipping, 'ship');
  const parcels = async (): Promise<Record<string, string>> => {
    const list = (await (await fetch(`${shipping.url}/api/shipments`)).json()) as { orderId: string; state: string }[];
    return Object.fromEntries(list.map(({ orderId, state }) => [orderId, state]));
  };

  it('hands over one parcel for a command, however often it comes, also at once', async () => {
    expect(await ship('GET', 's-1')).toMatchObject({ status: 404 });
    const answers = await Promise.all(Array.from({ length: 10 }, () => ship('PUT', 's-1', { orderId: '1' })));
    for (const answer of answers) expect(answer).toEqual(is('done'));
    expect(await ship('GET', 's-1')).toEqual(is('done'));
    expect(await ship('PUT', 's-other', { orderId: '1' })).toEqual(is('refused'));
    expect(await parcels()).toMatchObject({ 1: 'handed-over' });
  });

  it('calls it back once, and never hands it over again', async () => {
    await ship('PUT', 's-2', { orderId: '2' });
    expect([await ship('DELETE', 's-2'), await ship('DELETE', 's-2')]).toEqual([is('done'), is('done')]);
    expect(await parcels()).toMatchObject({ 2: 'called-back' });
    expect([await ship('PUT', 's-2', { orderId: '2' }), await ship('PUT', 's-3', { orderId: '2' })]).toEqual([
      is('refused'),
      is('refused'),
    ]);
  });

  it('refuses what was undone before it came, and what names no order', async () => {
    expect(await ship('DELETE', 's-4')).toEqual(is('done'));
    expect(await ship('PUT', 's-4', { orderId: '4' })).toEqual(is('refused'));
    expect(await ship('PUT', 's-5', { orderId: 5 })).toEqual(is('refused'));
    expect(await parcels()).not.toHaveProperty('4');
    expect(await ship('PUT', 's-6', { orderId: '6' }, 'token-of-a-stranger')).toMatchObject({ status: 401 });
    expect(await saga(() => shipping, 'fly')('PUT', 's-7', { orderId: '7' })).toMatchObject({ status: 400 });
  });
});

describe('payment', () => {
  const pay = saga(() => payment, 'pay');
  const PRICE = { amount: 12.5, currency: 'EUR' };
  const charge = (id: string) => provider.charges().find(({ key }) => key === id)?.state;
  const mood = (moods: Partial<Moods>): void => provider.setMoods({ ...CALM, ...moods });

  it('charges once for a command, and gives back once', async () => {
    mood({});
    expect(await Promise.all([pay('PUT', 'p-1', PRICE), pay('PUT', 'p-1', PRICE)])).toEqual([is('done'), is('done')]);
    expect(provider.charges().filter(({ key }) => key === 'p-1')).toMatchObject([{ amount: 12.5, state: 'charged' }]);
    expect([await pay('DELETE', 'p-1'), await pay('DELETE', 'p-1')]).toEqual([is('done'), is('done')]);
    expect([charge('p-1'), await pay('PUT', 'p-1', PRICE)]).toEqual(['refunded', is('refused')]);
  });

  it('knows what it does not know: a charge that failed, was lost or hangs is asked about before it is made again', async () => {
    mood({ fail: 1 });
    expect(await pay('PUT', 'p-2', PRICE)).toEqual(is('unknown'));
    mood({});
    expect(await pay('GET', 'p-2')).toMatchObject({ status: 404 });
    expect(await pay('PUT', 'p-2', PRICE)).toEqual(is('done'));

    mood({ failAfter: 1 });
    expect([await pay('PUT', 'p-3', PRICE), charge('p-3')]).toEqual([is('unknown'), 'charged']);
    mood({});
    expect(await pay('GET', 'p-3')).toEqual(is('done'));

    mood({ hang: 1 });
    expect(await pay('PUT', 'p-4', PRICE)).toEqual(is('unknown'));
    mood({});
    expect(await pay('DELETE', 'p-4')).toEqual(is('done'));
    expect(await pay('PUT', 'p-4', PRICE)).toEqual(is('refused'));
    expect(charge('p-4')).not.toBe('charged');
  });

  it('is refused where the card is, and where there is nothing to pay', async () => {
    mood({ refuse: 1 });
    expect([await pay('PUT', 'p-5', PRICE), await pay('GET', 'p-5')]).toEqual([is('refused'), is('refused')]);
    mood({});
    expect(await pay('PUT', 'p-6', { amount: -1, currency: 'EUR' })).toEqual(is('refused'));
    expect(charge('p-6')).toBeUndefined();
  });

  it('keeps out a charge that is undone before it comes, also while the provider was away', async () => {
    mood({ fail: 1 });
    expect(await pay('DELETE', 'p-7')).toEqual(is('unknown'));
    mood({});
    expect(await pay('DELETE', 'p-7')).toEqual(is('done'));
    expect([await pay('PUT', 'p-7', PRICE), charge('p-7')]).toEqual([is('refused'), 'void']);
  });
});
