import { createHmac, generateKeyPairSync } from 'node:crypto';
import { afterEach, describe, expect, it } from '@jest/globals';
import { exportJWK, SignJWT } from 'jose';
import { bucketOf } from '../../gateway/core/bucket.ts';
import { get, type Listening, listenOn, openTwoSides, routeOf, type TwoSides } from '../harness/two-sides.ts';

const SECRET = 'a-secret-of-at-least-thirty-two-characters';
const open: { stop(): Promise<void> }[] = [];
const opened = async <T extends { stop(): Promise<void> }>(one: Promise<T>): Promise<T> => {
  const it = await one;
  open.push(it);
  return it;
};
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.stop();
});

/** Keys that fall on either side of a share of 50 %. */
const [IN, OUT] = ['in', 'out'].map((side) => {
  for (let n = 0; ; n++) if (bucketOf('order', `u${n}`) < 5_000 === (side === 'in')) return `u${n}`;
}) as [string, string];
const CANARY = { stage: 'canary', share: '50%' } as const;

const token = (claims: Record<string, unknown>, secret = SECRET, exp = 60): Promise<string> =>
  new SignJWT(claims)
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuer('shop')
    .setIssuedAt()
    .setExpirationTime(Math.floor(Date.now() / 1000) + exp)
    .sign(new TextEncoder().encode(secret));
const bearer = async (...args: Parameters<typeof token>) => ({ authorization: `Bearer ${await token(...args)}` });
const sideOf = async ({ url }: TwoSides, headers: Record<string, string>, path = '/api/orders/1') =>
  (await get(`${url}${path}`, headers)).headers['x-side'];

describe('sticky keys', () => {
  it('come from route parameters and from the query, decoded', async () => {
    const sides = await opened(openTwoSides({ ...CANARY, stickyKey: ['query:user', 'path:id'] }));
    expect(await sideOf(sides, {}, `/api/orders/${IN}`)).toBe('extracted');
    expect(await sideOf(sides, {}, `/api/orders/${OUT}`)).toBe('legacy');
    expect(await sideOf(sides, {}, `/api/orders/${OUT}?x=1&user=${IN}`)).toBe('extracted');
    expect(await sideOf(sides, {}, `/api/orders/${OUT}?us%65r=%${IN.charCodeAt(0).toString(16)}${IN.slice(1)}`)).toBe('extracted');
  });

  it('come from a claim that was verified, and from no other', async () => {
    const sides = await opened(
      openTwoSides({ ...CANARY, stickyKey: ['jwt:sub', 'header:x-user-id'] }, { jwt: { key: SECRET, issuer: 'shop' } }),
    );
    const fallback = { 'x-user-id': OUT };
    expect(await sideOf(sides, { ...fallback, ...(await bearer({ sub: IN })) })).toBe('extracted');
    // again, from memory
    expect(await sideOf(sides, { ...fallback, ...(await bearer({ sub: IN })) })).toBe('extracted');
    const none = Buffer.from('{"alg":"none"}').toString('base64url');
    const claims = Buffer.from(JSON.stringify({ sub: IN, iss: 'shop', exp: 4e9 })).toString('base64url');
    const refused = [
      await token({ sub: IN }, 'another-secret-of-at-least-thirty-two-characters'),
      await token({ sub: IN }, SECRET, -10),
      `${none}.${claims}.`,
      `${await token({ sub: IN })}x`,
      'a.b',
      'x'.repeat(9_000),
    ];
    for (const one of refused) expect(await sideOf(sides, { ...fallback, authorization: `Bearer ${one}` })).toBe('legacy');
    expect(await sideOf(sides, { ...fallback, authorization: `Basic ${await token({ sub: IN })}` })).toBe('legacy');
  });

  it('refuses HMAC made with a public key as the secret', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    const pem = publicKey.export({ format: 'pem', type: 'spki' }).toString();
    const sides = await opened(openTwoSides({ ...CANARY, stickyKey: ['jwt:sub', 'header:x-user-id'] }, { jwt: { key: pem } }));
    const good = await new SignJWT({ sub: IN }).setProtectedHeader({ alg: 'EdDSA' }).setExpirationTime('1m').sign(privateKey);
    expect(await sideOf(sides, { 'x-user-id': OUT, authorization: `Bearer ${good}` })).toBe('extracted');
    const head = Buffer.from('{"alg":"HS256"}').toString('base64url');
    const body = Buffer.from(JSON.stringify({ sub: IN, exp: 4e9 })).toString('base64url');
    const forged = `${head}.${body}.${createHmac('sha256', pem).update(`${head}.${body}`).digest('base64url')}`;
    expect(await sideOf(sides, { 'x-user-id': OUT, authorization: `Bearer ${forged}` })).toBe('legacy');
  });

  it('finds the key in a JWKS, asks for it once, and lets nobody wait for long when it is gone', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const jwk = { ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' };
    let asked = 0;
    const issuer: Listening = await opened(
      listenOn((_req, res) => {
        asked++;
        res.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: [jwk] }));
      }),
    );
    const jwt = { jwks: `${issuer.url}/jwks.json` };
    const sides = await opened(openTwoSides({ ...CANARY, stickyKey: ['jwt:sub', 'header:x-user-id'] }, { jwt }));
    const sign = (sub: string) =>
      new SignJWT({ sub }).setProtectedHeader({ alg: 'ES256', kid: 'k1' }).setExpirationTime('1m').sign(privateKey);
    for (let n = 0; n < 3; n++)
      expect(await sideOf(sides, { 'x-user-id': OUT, authorization: `Bearer ${await sign(IN)}` })).toBe('extracted');
    expect(asked).toBe(1);

    const silent: Listening = await opened(listenOn(() => undefined));
    const others = await opened(openTwoSides({ ...CANARY, stickyKey: ['jwt:sub', 'header:x-user-id'] }, { jwt: { jwks: silent.url } }));
    const from = performance.now();
    expect(await sideOf(others, { 'x-user-id': IN, authorization: `Bearer ${await sign(OUT)}` })).toBe('extracted');
    expect(performance.now() - from).toBeLessThan(4_000);
  });

  it('reads claims unverified, for the bucket alone, where no key is configured', async () => {
    const sides = await opened(openTwoSides({ ...CANARY, stickyKey: ['jwt:sub'] }));
    expect(await sideOf(sides, await bearer({ sub: IN }, 'whatever-secret-whatever-secret-whatever'))).toBe('extracted');
    expect(await sideOf(sides, await bearer({ sub: OUT }))).toBe('legacy');
    const got = await get(`${sides.url}/api/orders/1`, { authorization: 'Bearer no.token.atall' });
    expect([got.status, got.headers['set-cookie']?.[0]?.startsWith('banyan-id=')]).toEqual([200, true]);
  });
});

describe('overrides', () => {
  const overrides = [
    { to: 'legacy', when: 'header:x-user-id=eve' },
    { to: 'extracted', when: 'header:x-beta' },
    { to: 'extracted', when: 'cookie:team=alpha' },
    { to: 'extracted', when: 'jwt:tenant=acme' },
    { to: 'extracted', when: 'cidr:10.0.0.0/8' },
  ] as const;
  const at = (stage: 'legacy' | 'canary' | 'cutover') =>
    opened(
      openTwoSides(
        { stage, share: '0%', stickyKey: ['header:x-user-id'], overrides: [...overrides] },
        { jwt: { key: SECRET }, trustedProxies: ['127.0.0.1'] },
      ),
    );

  it('move queries by person, tenant, cookie and address; the first that holds wins', async () => {
    const sides = await at('canary');
    const told = async (headers: Record<string, string>) => routeOf(await get(`${sides.url}/api/orders/1`, headers));
    const extracted = { upstream: 'extracted', reason: 'OVERRIDE' };
    expect(await told({ 'x-user-id': 'alice' })).toEqual({ upstream: 'legacy', reason: 'SPLIT' });
    expect(await told({ 'x-beta': '' })).toEqual(extracted);
    expect(await told({ 'x-beta': '1', 'x-user-id': 'eve' })).toEqual({ upstream: 'legacy', reason: 'OVERRIDE' });
    expect(await told({ cookie: 'a=b; team=alpha' })).toEqual(extracted);
    expect(await told({ cookie: 'team=beta', 'x-user-id': 'a' })).toEqual({ upstream: 'legacy', reason: 'SPLIT' });
    expect(await told(await bearer({ tenant: 'acme' }))).toEqual(extracted);
    expect(await told(await bearer({ tenant: ['x', 'acme'] }))).toEqual(extracted);
    expect((await told(await bearer({ tenant: 'acme' }, 'another-secret-of-at-least-thirty-two-characters'))).reason).toBe('SPLIT');
    expect(await told({ 'x-forwarded-for': '10.1.2.3' })).toEqual(extracted);
    expect((await told({ 'x-forwarded-for': '11.1.2.3' })).reason).toBe('SPLIT');
  });

  it('hold at stage legacy too, never for a command, and not from cutover on', async () => {
    const early = await at('legacy');
    expect(routeOf(await get(`${early.url}/api/orders/1`, { 'x-beta': '1' }))).toEqual({ upstream: 'extracted', reason: 'OVERRIDE' });
    expect(routeOf(await get(`${early.url}/api/orders/1`, { 'x-beta': '1' }, 'POST'))).toEqual({ upstream: 'legacy', reason: 'STAGE' });
    const sides = await opened(
      openTwoSides({ stage: 'shadow', stickyKey: ['header:x-user-id'], overrides: [{ to: 'extracted', when: 'header:x-beta' }] }),
    );
    expect(routeOf(await get(`${sides.url}/api/orders/1`, { 'x-beta': '1' })).upstream).toBe('extracted');
  });
});
