import { describe, expect, it } from '@jest/globals';
import { formatFault, type LoadOptions, loadConfig } from '../config.ts';

const load = (legacy: string, more: Partial<LoadOptions> = {}) =>
  loadConfig({ text: `version: 1\nlegacy: ${legacy}\n`, env: {}, now: new Date('2026-06-01T00:00:00Z'), ...more });

const legacyOf = async (text: string) => {
  const result = await load(text);
  if (!result.ok) throw new Error(result.faults.map(formatFault).join('\n'));
  return result.config.legacy;
};

const faultsOf = async (text: string, more: Partial<LoadOptions> = {}): Promise<readonly string[]> => {
  const result = await load(text, more);
  return result.ok ? [] : result.faults.map(({ path, message }) => `${path}: ${message}`);
};

describe('the hosts of an upstream', () => {
  it('are addresses of three kinds', async () => {
    const { urls, url } = await legacyOf('{ urls: [ "http://127.0.0.1:3000/", "https://Shop.internal", "unix:/run/shop.sock" ] }');
    expect(urls).toEqual(['http://127.0.0.1:3000', 'https://shop.internal', 'unix:/run/shop.sock']);
    expect(url).toBe('http://127.0.0.1:3000');
  });

  it.each(['unix:run/shop.sock', 'unix:', 'unix:/', `unix:/${'a'.repeat(107)}`, 'ftp://shop', 'https://shop/path', '/run/shop.sock'])(
    'are not %s',
    async (url) => {
      expect(await faultsOf(`{ url: ${JSON.stringify(url)} }`)).toHaveLength(1);
    },
  );

  it('are checked and left out only as far as one says; ejection is on', async () => {
    expect(await legacyOf('{ url: "http://a" }')).toMatchObject({
      tls: null,
      health: null,
      outlier: { consecutiveFailures: 5, ejection: 30_000, maxEjected: 5_000 },
    });
    expect(await legacyOf('{ url: "http://a", health: { path: /healthz, status: 204 }, outlier: null }')).toMatchObject({
      health: { path: '/healthz', interval: 5_000, timeout: 2_000, healthyAfter: 2, unhealthyAfter: 3, status: { from: 204, to: 204 } },
      outlier: null,
    });
    expect(await legacyOf('{ url: "http://a", health: {} }')).toMatchObject({ health: { path: null, status: { from: 200, to: 399 } } });
  });

  it('are named once, one way', async () => {
    expect(await faultsOf('{ url: "http://a", urls: [ "http://b" ] }')).toEqual(['legacy.urls: says again what legacy.url says']);
    expect(await faultsOf('{ urls: [ "http://a", "http://a:80/" ] }')).toEqual(['legacy.urls: names a host twice']);
  });

  it('must be named for an extracted service too', async () => {
    const text =
      'version: 1\nlegacy: { url: "http://a" }\ncontexts: { order: { match: [ { path: /o } ], else: legacy, extracted: { connections: 3 } } }';
    const result = await loadConfig({ text, env: {} });
    expect(result.ok ? [] : result.faults.map(({ path, message }) => `${path}: ${message}`)).toEqual([
      'contexts.order.extracted.url: missing',
    ]);
    const several = await loadConfig({ text: text.replace('connections: 3', 'urls: [ "http://b", "http://c" ]'), env: {} });
    expect(several).toMatchObject({
      ok: true,
      config: { contexts: { order: { extracted: { url: 'http://b', urls: ['http://b', 'http://c'] } } } },
    });
  });

  it.each([
    ['status', '{ status: 399-200 }'],
    ['status', '{ status: 99 }'],
    ['path', '{ path: healthz }'],
    ['path', '{ path: "/health z" }'],
    ['interval', '{ interval: 5ms }'],
    ['unhealthyAfter', '{ unhealthyAfter: 0 }'],
  ])('have no health check with a bad %s', async (key, health) => {
    const [fault = ''] = await faultsOf(`{ url: "http://a", health: ${health} }`);
    expect(fault).toMatch(`legacy.health.${key}: `);
  });
});

describe('TLS to an upstream', () => {
  it('says what cannot be read, without showing it', async () => {
    const readFile = (path: string): string => {
      if (path === 'text') return 'hello';
      throw new Error('ENOENT');
    };
    expect(
      await faultsOf('{ url: "https://a", tls: { ca: nowhere.pem, cert: text, key: "-----BEGIN NONSENSE-----" } }', { readFile }),
    ).toEqual([
      'legacy.tls.ca: is no PEM text, and no file of this name can be read',
      'legacy.tls.cert: names a file that holds no PEM text',
      'legacy.tls.key: holds no private key that can be read',
    ]);
  });

  it('wants cert and key together, and a host name as server name', async () => {
    expect(await faultsOf('{ url: "https://a", tls: { servername: 127.0.0.1 } }')).toEqual([
      'legacy.tls.servername: "127.0.0.1" does not fit',
    ]);
    const [, lonely] = await faultsOf('{ url: "https://a", tls: { cert: "-----BEGIN CERTIFICATE-----" } }');
    expect(lonely).toBe('legacy.tls.cert: holds no certificate that can be read');
  });

  it('warns of what is not verified, and of what means nothing', async () => {
    const result = await load('{ url: "http://a", tls: { verify: false } }');
    expect(result.ok && result.warnings.map(({ path }) => path)).toEqual(['legacy.tls', 'legacy.tls.verify']);
  });
});
