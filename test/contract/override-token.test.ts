import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, describe, expect, it } from '@jest/globals';
import { decodeJwt, SignJWT } from 'jose';
import { signOverride } from '../../gateway/identity/override-token.ts';
import { get, openTwoSides, routeOf, type TwoSides } from '../harness/two-sides.ts';

const KEY = 'an-override-secret-of-thirty-two-chars';
let sides: TwoSides | null = null;
afterEach(async () => {
  await sides?.stop();
  sides = null;
});

const open = (order: Parameters<typeof openTwoSides>[0] = {}, key: string | null = KEY): Promise<TwoSides> =>
  openTwoSides({ stage: 'canary', share: '0%', stickyKey: ['header:x-user-id'], ...order }, key === null ? {} : { overrideToken: { key } });
const send = (of: TwoSides, override: string, token: string, method = 'GET') =>
  get(`${of.url}/api/orders/1`, { 'x-user-id': 'u1', 'banyan-override': override, 'banyan-override-token': token }, method);
const OVERRIDDEN = { upstream: 'extracted', reason: 'OVERRIDE' };
const SPLIT = { upstream: 'legacy', reason: 'SPLIT' };

describe('a request that chooses its side', () => {
  it('is heard with a token for just that, and neither header goes on', async () => {
    sides = await open();
    const token = await signOverride(KEY, 'order', 'extracted', 60, Date.now());
    for (let n = 0; n < 2; n++) expect(routeOf(await send(sides, 'order=extracted', token))).toEqual(OVERRIDDEN);
    expect(routeOf(await send(sides, 'order=legacy', token))).toEqual(SPLIT);
    expect(routeOf(await send(sides, 'basket=extracted', token))).toEqual(SPLIT);
    expect(routeOf(await send(sides, 'order=extracted', token, 'POST'))).toEqual({ upstream: 'legacy', reason: 'STAGE' });
    expect(
      [...sides.legacy.seen, ...sides.extracted.seen]
        .flatMap(({ headers }) => Object.keys(headers))
        .filter((name) => name.startsWith('banyan-')),
    ).toEqual([]);
  });

  it('is not heard with a token that is forged, old, too long-lived, without an end, or for something else', async () => {
    sides = await open();
    const now = Date.now();
    const bare = (claims: Record<string, unknown>, seconds: number | null, audience = 'banyan-override', secret = KEY) => {
      const at = Math.floor(now / 1000);
      const jwt = new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).setAudience(audience).setIssuedAt(at);
      return (seconds === null ? jwt : jwt.setExpirationTime(at + seconds)).sign(new TextEncoder().encode(secret));
    };
    const good = { context: 'order', upstream: 'extracted' };
    expect(routeOf(await send(sides, 'order=extracted', await bare(good, 60)))).toEqual(OVERRIDDEN);
    const refused = [
      await bare(good, 60, 'banyan-override', `${KEY}x`),
      await bare(good, -1),
      await bare(good, 86_500),
      await bare(good, null),
      await bare(good, 60, 'shop'),
      await bare({ context: 'order' }, 60),
      await bare({ context: 'order', upstream: 'sideways' }, 60),
      await signOverride(KEY, 'order', 'extracted', 60, now - 120_000),
      await signOverride(KEY, 'order', 'extracted', 86_400, now + 3_600_000),
      'no token',
      'x'.repeat(5_000),
    ];
    for (const token of refused) expect(routeOf(await send(sides, 'order=extracted', token))).toEqual(SPLIT);
    for (const override of ['', '=', 'order', 'order=', '=extracted', 'order=extracted=', 'order=extracted, order=legacy'])
      expect(routeOf(await send(sides, override, await bare(good, 60)))).toEqual(SPLIT);
  });

  it('is not heard without configuration, nor when the context is killed', async () => {
    const token = await signOverride(KEY, 'order', 'extracted', 60, Date.now());
    sides = await open({}, null);
    expect(routeOf(await send(sides, 'order=extracted', token))).toEqual(SPLIT);
    expect(sides.legacy.seen[0]!.headers['banyan-override']).toBeUndefined();
    await sides.stop();
    sides = await open();
    const { default: request } = await import('supertest');
    const killed = await request(sides.banyan.admin).post('/api/v1/contexts/order/kill').set('host', 'localhost').send({ reason: 'test' });
    expect(killed.status).toBe(200);
    expect(routeOf(await send(sides, 'order=extracted', token))).toEqual({ upstream: 'legacy', reason: 'KILLED' });
  });

  it('takes an Ed25519 key, of which the gateway needs the public half alone', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    const pem = publicKey.export({ format: 'pem', type: 'spki' }).toString();
    sides = await open({}, pem);
    const token = await signOverride(privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(), 'order', 'extracted', 60, Date.now());
    expect(routeOf(await send(sides, 'order=extracted', token))).toEqual(OVERRIDDEN);
    await expect(signOverride(pem, 'order', 'extracted', 60, Date.now())).rejects.toMatchObject({ code: 'not-configured' });
  });
});

const banyan = (args: readonly string[], env: Readonly<Record<string, string>>): Promise<{ code: number; out: string; err: string }> =>
  new Promise((done) => {
    const main = resolve(import.meta.dirname, '../../gateway/cli/main.ts');
    execFile(process.execPath, [main, ...args], { env: { PATH: process.env.PATH ?? '', ...env } }, (error, out, err) =>
      done({ code: error === null ? 0 : Number(error.code), out, err }),
    );
  });

describe('banyan override token', () => {
  it('prints one that the gateway takes; refuses what it could not sign', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'banyan override '));
    try {
      const file = join(folder, 'banyan.yaml');
      const text = (more: string): string =>
        `version: 1\nlegacy: { url: http://127.0.0.1:1 }\n${more}\ncontexts: { order: { match: [ { path: /o } ], else: legacy } }\n`;
      await writeFile(file, text('overrideToken: { key: "${KEY}" }'));
      const env = { KEY };
      const made = await banyan(['override', 'token', 'order', 'extracted', '--for', '2h', '--config', file], env);
      expect([made.code, made.err]).toEqual([0, expect.stringContaining('banyan-override: order=extracted')]);
      const claims = decodeJwt(made.out.trim());
      expect(claims.exp! - claims.iat!).toBe(7_200);
      sides = await open();
      expect(routeOf(await send(sides, 'order=extracted', made.out.trim()))).toEqual(OVERRIDDEN);
      const document = JSON.parse((await banyan(['override', 'token', 'order', 'legacy', '--json', '--config', file], env)).out);
      expect(document).toMatchObject({
        context: 'order',
        upstream: 'legacy',
        seconds: 3_600,
        headers: { 'banyan-override': 'order=legacy' },
      });
      const wrong = [
        ['order', 'sideways'],
        ['nothing', 'legacy'],
        ['order', 'legacy', '--for', '25h'],
      ];
      const refused = await Promise.all(wrong.map((args) => banyan(['override', 'token', ...args, '--config', file], env)));
      expect(refused.map(({ code }) => code)).toEqual([2, 2, 2]);
      await writeFile(file, text(''));
      const none = await banyan(['override', 'token', 'order', 'legacy', '--config', file], env);
      expect([none.code, none.err]).toEqual([2, expect.stringContaining('overrideToken.key')]);

      await writeFile(file, text('seal: { key: a-seal-key-for-tests }\nidentity: { from: GET /whoami }'));
      const key = await banyan(['identity', 'key', '--config', file], env);
      expect([key.code, key.out]).toEqual([0, expect.stringMatching(/^-----BEGIN PUBLIC KEY-----\n[\w+/=]+\n-----END PUBLIC KEY-----\n/)]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
