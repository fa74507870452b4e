import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OpenFeature } from '@openfeature/server-sdk';
import request from 'supertest';
import { bucketOf } from '../../gateway/core/bucket.ts';
import { type Banyan, createBanyan } from '../../gateway/embed.ts';
import { type Listening, listenOn } from '../harness/two-sides.ts';

const TOKEN = 'a-viewer-token';
let banyan: Banyan;
let admin: Listening;

beforeAll(async () => {
  const context = (path: string, stage: 'canary' | 'shadow') => ({
    match: [{ path, methods: ['GET'] }],
    else: 'legacy' as const,
    extracted: { url: 'http://127.0.0.1:9' },
    stage,
    share: stage === 'canary' ? '10%' : '0%',
  });
  banyan = await createBanyan({
    version: 1,
    log: { level: 'silent' },
    legacy: { url: 'http://127.0.0.1:9' },
    admin: { tokens: [{ name: 'vera', role: 'viewer', token: TOKEN }] },
    contexts: { order: context('/orders/**', 'canary'), inventory: context('/products/**', 'shadow') },
  });
  admin = await listenOn(banyan.admin);
});
afterAll(async () => {
  await OpenFeature.clearProviders();
  await admin.stop();
  await banyan.close();
});

const ask = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  request(admin.url)
    .post(`/ofrep/v1/evaluate/flags${path}`)
    .set({ authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json', ...headers })
    .send(typeof body === 'string' ? body : JSON.stringify(body));
const about = (targetingKey: unknown) => ({ context: { targetingKey } });

describe('OFREP', () => {
  it('answers as the bucket of the key says', async () => {
    for (const key of ['u1', 'user-1', 'ü', '😀', 'id-7', 'id-11', 'id-12']) {
      const { status, body } = await ask('/order', about(key));
      const bucket = bucketOf('order', key);
      const value = bucket < 1_000 ? 'extracted' : 'legacy';
      expect([status, body]).toEqual([
        200,
        {
          key: 'order',
          value,
          variant: value,
          reason: 'SPLIT',
          metadata: { reason: 'SPLIT', bucket, stage: 'canary', percent: 10, killed: false, version: expect.any(Number) },
        },
      ]);
    }
    expect((await ask('/inventory', about('u1'))).body).toMatchObject({ value: 'legacy', reason: 'STATIC', metadata: { stage: 'shadow' } });
  });

  it('serves the stock provider, through the SDK', async () => {
    await OpenFeature.setProviderAndWait(
      'shop',
      new OFREPProvider({ baseUrl: admin.url, headers: [['authorization', `Bearer ${TOKEN}`]] }),
    );
    const client = OpenFeature.getClient('shop');
    let extracted = 0;
    for (let n = 0; n < 100; n++) {
      const details = await client.getStringDetails('order', 'nobody', { targetingKey: `user-${n}` });
      expect(details).toMatchObject({ value: bucketOf('order', `user-${n}`) < 1_000 ? 'extracted' : 'legacy', reason: 'SPLIT' });
      expect(details.flagMetadata.bucket).toBe(bucketOf('order', `user-${n}`));
      if (details.value === 'extracted') extracted++;
    }
    expect(extracted).toBeGreaterThan(0);
    expect(await client.getStringDetails('nothing', 'mine', { targetingKey: 'u1' })).toMatchObject({
      value: 'mine',
      errorCode: 'FLAG_NOT_FOUND',
    });
    expect(await client.getStringDetails('order', 'mine', {})).toMatchObject({ value: 'mine', errorCode: 'TARGETING_KEY_MISSING' });
    expect(await client.getBooleanDetails('order', true, { targetingKey: 'u1' })).toMatchObject({
      value: true,
      errorCode: 'TYPE_MISMATCH',
    });
  });

  it('gives all flags at once, and 304 to who has them', async () => {
    const first = await ask('', about('u1'));
    expect(first.body.flags.map((flag: { key: string; value: string }) => [flag.key, flag.value]).sort()).toEqual([
      ['inventory', 'legacy'],
      ['order', 'legacy'],
    ]);
    const { etag } = first.headers as { etag: string };
    const again = await ask('', about('u1'), { 'if-none-match': `W/${etag}, "other"` });
    expect([again.status, again.text]).toEqual([304, '']);
    expect((await ask('', about('u2'), { 'if-none-match': etag })).status).toBe(200);
  });

  it.each([
    ['{', 'PARSE_ERROR'],
    ['[]', 'PARSE_ERROR'],
    ['"text"', 'PARSE_ERROR'],
    [{}, 'TARGETING_KEY_MISSING'],
    [{ context: {} }, 'TARGETING_KEY_MISSING'],
    [about(''), 'TARGETING_KEY_MISSING'],
    [about(null), 'TARGETING_KEY_MISSING'],
    [{ context: 'u1' }, 'INVALID_CONTEXT'],
    [{ context: null }, 'INVALID_CONTEXT'],
    [about(7), 'INVALID_CONTEXT'],
    [about({ a: 1 }), 'INVALID_CONTEXT'],
  ])('refuses %j with 400 %s', async (body, errorCode) => {
    const one = await ask('/order', body);
    expect([one.status, one.body]).toEqual([400, { key: 'order', errorCode, errorDetails: expect.any(String) }]);
    const all = await ask('', body);
    expect([all.status, all.body]).toEqual([400, { errorCode, errorDetails: expect.any(String) }]);
  });

  it('says 404 for what is no context, and wants a token as other reads do', async () => {
    for (const name of ['nothing', '__proto__', '%F0%9F%98%80', 'a%2Fb']) {
      const { status, body } = await ask(`/${name}`, about('u1'));
      expect([status, body.errorCode]).toEqual([404, 'FLAG_NOT_FOUND']);
    }
    expect((await ask('/order', about('u1'), { authorization: 'Bearer nobody' })).status).toBe(401);
    expect((await ask('/order', about('u1'), { 'content-type': 'text/plain' })).status).toBe(415);
    expect((await ask('/%zz', about('u1'))).status).toBe(400);
    expect((await request(admin.url).get('/ofrep/v1/evaluate/flags/order').set('authorization', `Bearer ${TOKEN}`)).status).toBe(404);
  });
});
