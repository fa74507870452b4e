import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { startTraffic } from '@banyan/dev-traffic/traffic.ts';
import { describe, expect, it } from '@jest/globals';
import request from 'supertest';
import { WebSocket } from 'ws';
import { until } from './wait.ts';

/** What a browser meets of the shop at the URL that `shop` gives: pages, forms, files, streams, sockets. The same whatever stands in front. */
export const describeShopPages = (shop: () => string): void => {
  const logIn = (password = 'secret', next = '') =>
    request(shop()).post('/login').type('form').send({ user: 'user-3', password, next }).redirects(0);
  const cookiesOf = (headers: Record<string, string>): string[] => headers['set-cookie'] as unknown as string[];

  describe('pages', () => {
    it('show the catalogue and redirect the old one for good', async () => {
      const home = await request(shop()).get('/');
      expect([home.status, home.headers['content-type']]).toEqual([200, 'text/html; charset=utf-8']);
      expect(home.text).toContain('Wheelbarrow');
      const old = await request(shop()).get('/old-catalog').redirects(0);
      expect([old.status, old.headers.location]).toEqual([301, '/']);
      expect((await request(shop()).get('/nowhere')).status).toBe(404);
      expect((await request(shop()).get('/api/orders/%zz')).status).toBe(400);
      expect((await request(shop()).get('/healthz')).body).toEqual({ status: 'ok' });
    });

    it('log in with three cookies, order through the form, log out', async () => {
      expect((await request(shop()).get('/account').redirects(0)).headers.location).toBe('/login?next=/account');
      expect((await logIn('wrong')).status).toBe(401);
      const login = await logIn();
      expect([login.status, login.headers.location]).toEqual([303, '/account']);
      const set = cookiesOf(login.headers);
      expect(set.map((cookie) => cookie.split('=')[0])).toEqual(['session', 'theme', 'csrf']);
      expect(set[0]).toContain('HttpOnly');
      const cookie = set.map((value) => value.split(';')[0]).join('; ');

      expect((await request(shop()).get('/account').set('Cookie', cookie)).text).toContain('Customer 3');
      const form = (await request(shop()).get('/orders/new').set('Cookie', cookie)).text;
      const hidden = (name: string): string => new RegExp(`name="${name}" value="([^"]+)"`).exec(form)![1]!;
      const order = (fields: object) => request(shop()).post('/orders').type('form').set('Cookie', cookie).send(fields).redirects(0);
      const fields = { productId: '2', quantity: '4', ref: hidden('ref'), csrf: hidden('csrf') };
      const placed = await order(fields);
      expect([placed.status, placed.headers.location]).toEqual([303, expect.stringMatching(/^\/orders\/\d+$/)]);
      expect((await order(fields)).headers.location).toBe(placed.headers.location);
      expect((await order({ ...fields, csrf: 'forged' })).status).toBe(403);
      expect((await order({ productId: '2', quantity: '0' })).status).toBe(400);
      expect((await request(shop()).get(placed.headers.location!).set('Cookie', cookie)).text).toContain('31.96 EUR');
      expect((await request(shop()).get('/orders/1001').set('Cookie', cookie)).status).toBe(404);

      const out = await request(shop()).get('/logout').set('Cookie', cookie).redirects(0);
      expect([out.status, out.headers.location]).toEqual([303, '/']);
      expect((await request(shop()).get('/account').set('Cookie', cookie).redirects(0)).status).toBe(302);
    });

    it.each(['//evil.example/', '/\\evil.example', 'https://evil.example/'])('never follow a login to %s', async (next) => {
      expect((await logIn('secret', next)).headers.location).toBe('/account');
    });
  });

  describe('files', () => {
    it('come back byte for byte, in parts, and not at all when the client has them', async () => {
      const content = randomBytes(300_000);
      const sha256 = createHash('sha256').update(content).digest('hex');
      const upload = await request(shop())
        .post('/upload')
        .attach('file', content, { filename: 'größe.bin', contentType: 'application/x-test' });
      expect([upload.status, upload.body]).toEqual([
        201,
        { id: expect.any(Number), name: 'größe.bin', type: 'application/x-test', size: 300_000, sha256, url: upload.headers.location },
      ]);
      const url = shop() + upload.headers.location!;
      const get = async (headers: Record<string, string>) => {
        const answer = await fetch(url, { headers });
        return { status: answer.status, headers: answer.headers, body: Buffer.from(await answer.arrayBuffer()) };
      };
      const whole = await get({});
      expect(whole.body.equals(content)).toBe(true);
      expect([whole.headers.get('accept-ranges'), whole.headers.get('etag')]).toEqual(['bytes', `"${sha256}"`]);
      const part = await get({ range: 'bytes=1000-1999' });
      expect([part.status, part.headers.get('content-range')]).toEqual([206, 'bytes 1000-1999/300000']);
      expect(part.body.equals(content.subarray(1000, 2000))).toBe(true);
      expect((await get({ range: 'bytes=-5' })).body.equals(content.subarray(-5))).toBe(true);
      const beyond = await get({ range: 'bytes=300000-' });
      expect([beyond.status, beyond.headers.get('content-range')]).toEqual([416, 'bytes */300000']);
      expect((await get({ range: 'bytes=0-1', 'if-range': '"other"' })).status).toBe(200);
      // Not by fetch: it adds cache-control: no-cache to a conditional request, which asks for the whole again.
      expect((await request(url).get('').set('If-None-Match', `"${sha256}"`)).status).toBe(304);
      const head = await request(url).head('');
      expect([head.status, head.headers['content-length']]).toEqual([200, '300000']);
    });

    it('are refused over 20 MB, or when there is none', async () => {
      const large = await request(shop())
        .post('/upload')
        .attach('file', Buffer.alloc(20 * 1024 * 1024 + 1), 'large.bin');
      expect(large.status).toBe(413);
      expect((await request(shop()).post('/upload').field('a', 'b')).status).toBe(400);
      expect(
        (await request(shop()).post('/upload').set('Content-Type', 'multipart/form-data; boundary=x').send('--x\r\nbroken')).status,
      ).toBe(400);
    });

    it('of the shop itself have ETags and ranges', async () => {
      for (const [path, type] of [
        ['/assets/shop.css', 'text/css'],
        ['/assets/shop.js', 'text/javascript'],
        ['/assets/banner.bin', 'application/octet-stream'],
      ]) {
        const answer = await request(shop()).get(path!);
        expect([answer.status, answer.headers['content-type']?.split(';')[0]]).toEqual([200, type]);
        expect((await request(shop()).get(path!).set('If-None-Match', answer.headers.etag!)).status).toBe(304);
        expect((await request(shop()).get(path!).set('If-Modified-Since', answer.headers['last-modified']!)).status).toBe(304);
        expect((await request(shop()).get(path!).set('Range', 'bytes=0-9')).headers['content-length']).toBe('10');
      }
      expect((await request(shop()).head('/assets/banner.bin')).headers['content-length']).toBe('200000');
    });
  });

  describe('live', () => {
    it('streams events: one at once, then new orders', async () => {
      const answer = await fetch(`${shop()}/events`);
      expect(answer.headers.get('content-type')).toBe('text/event-stream');
      const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      const readUntil = async (part: string): Promise<void> => {
        while (!text.includes(part)) {
          const { value, done } = await reader.read();
          if (done) throw new Error(`the stream ended without ${part}: ${text}`);
          text += value;
        }
      };
      await readUntil('event: hello\n');
      const { body } = await request(shop())
        .post('/api/orders')
        .send({ userId: 'live', items: [{ productId: 1, quantity: 1 }] });
      await readUntil(`event: order-placed\ndata: ${JSON.stringify(body)}\n\n`);
      await readUntil('event: tick\n');
      await reader.cancel();
    });

    it('welcomes and echoes over a WebSocket with the subprotocol asked for', async () => {
      const ws = new WebSocket(`${shop().replace('http', 'ws')}/ws`, ['other', 'shop.v1']);
      const [welcome] = (await once(ws, 'message')) as [Buffer];
      expect([String(welcome), ws.protocol]).toEqual(['welcome', 'shop.v1']);
      for (const message of ['grüße', Buffer.from([0, 255, 1])]) {
        const echoed = once(ws, 'message');
        ws.send(message);
        const [data, isBinary] = (await echoed) as [Buffer, boolean];
        expect([Buffer.compare(data, Buffer.from(message)), isBinary]).toEqual([0, typeof message !== 'string']);
      }
      ws.close();
      await once(ws, 'close');
      const elsewhere = new WebSocket(`${shop().replace('http', 'ws')}/nowhere`);
      const [error] = (await once(elsewhere, 'error')) as [Error];
      expect(error.message).toContain('404');
    });

    it('is traffic-proof: nobody misses an order just placed', async () => {
      const traffic = startTraffic({ gateway: shop(), ordersPerSecond: 100, queriesPerSecond: 100, log: () => undefined });
      await until(() => traffic.summary().placed >= 30 && traffic.summary().queries >= 30, { describe: 'some traffic' });
      expect(await traffic.stop()).toMatchObject({ missed: 0, failed: 0, retried: 0, lastFailure: null });
    });
  });
};
