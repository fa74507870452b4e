import { beforeAll, describe, expect, it } from '@jest/globals';
import { type Certificate, createAuthority } from '../../test/harness/certificates.ts';
import { formatFault, loadConfig } from '../config.ts';
import { maskSecrets } from './secrets.ts';

let shop: Certificate;
let other: Certificate;
let ended: Certificate;
beforeAll(async () => {
  const authority = await createAuthority();
  shop = await authority.issue({ names: ['shop.test'] });
  other = await authority.issue({ names: ['other.test'] });
  ended = await authority.issue({ names: ['old.test'], notBefore: new Date('2024-01-01'), notAfter: new Date('2025-01-01') });
});

const FILES = (): Readonly<Record<string, string>> => ({
  'shop.crt': shop.cert,
  'shop.key': shop.key,
  'other.crt': other.cert,
  'other.key': other.key,
  'ended.crt': ended.cert,
  'ended.key': ended.key,
  'notes.txt': 'no PEM',
  'broken.crt': '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n',
  'broken.key': '-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n',
});

const load = (listen: string) =>
  loadConfig({
    text: `version: 1\nlegacy: { url: "http://a" }\nlisten: ${listen}\n`,
    env: {},
    readFile: (path) => {
      const text = FILES()[path];
      if (text === undefined) throw new Error('no such file');
      return text;
    },
  });

const listenOf = async (listen: string) => {
  const result = await load(listen);
  if (!result.ok) throw new Error(result.faults.map(formatFault).join('\n'));
  return result.config.listen;
};

const faultsOf = async (listen: string): Promise<readonly string[]> => {
  const result = await load(listen);
  return result.ok ? [] : result.faults.map(({ line, path, message }) => `${line} ${path}: ${message}`);
};

describe('a listener', () => {
  it('is an address, or an address with certificates and HTTP/2', async () => {
    expect(await listenOf('127.0.0.1:1')).toEqual([{ host: '127.0.0.1', port: 1, tls: null, http2: false }]);
    expect(await listenOf('{ address: "127.0.0.1:1", http2: true }')).toMatchObject([{ port: 1, tls: null, http2: true }]);
    expect(await listenOf('[ { address: "127.0.0.1:1", tls: { cert: shop.crt, key: shop.key } }, 127.0.0.1:2 ]')).toMatchObject([
      { port: 1, tls: [{ cert: 'shop.crt', key: 'shop.key' }], http2: false },
      { port: 2, tls: null },
    ]);
    expect(
      await listenOf('{ address: "127.0.0.1:1", tls: [ { cert: shop.crt, key: shop.key }, { cert: other.crt, key: other.key } ] }'),
    ).toMatchObject([{ tls: [{ cert: 'shop.crt' }, { cert: 'other.crt' }] }]);
  });

  it.each([
    ['{ address: "127.0.0.1:1", tls: { cert: other.crt, key: shop.key } }', '3 listen.tls.key: is not the key of cert'],
    [
      '{ address: "127.0.0.1:1", tls: { cert: absent.crt, key: shop.key } }',
      '3 listen.tls.cert: is no PEM text, and no file of this name can be read',
    ],
    ['{ address: "127.0.0.1:1", tls: { cert: notes.txt, key: shop.key } }', '3 listen.tls.cert: names a file that holds no PEM text'],
    ['{ address: "127.0.0.1:1", tls: { cert: broken.crt, key: shop.key } }', '3 listen.tls.cert: holds no certificate that can be read'],
    ['{ address: "127.0.0.1:1", tls: { cert: shop.crt, key: broken.key } }', '3 listen.tls.key: holds no private key that can be read'],
    [
      '[ 127.0.0.1:2, { address: "127.0.0.1:1", tls: [ { cert: shop.crt, key: shop.key }, { cert: other.crt, key: shop.key } ] } ]',
      '3 listen[1].tls[1].key: is not the key of cert',
    ],
    ['{ address: "127.0.0.1:1", tls: { cert: shop.crt } }', '3 listen.tls.key: missing'],
    ['{ address: "127.0.0.1:1", tls: [] }', '3 listen.tls: a list does not fit'],
    ['{ address: "127.0.0.1:1", http2: maybe }', '3 listen.http2: "maybe" does not fit'],
    ['{ address: "127.0.0.1:1", tsl: { cert: shop.crt, key: shop.key } }', '3 listen.tsl: unknown key "tsl"; did you mean "tls"?'],
  ])('%s is refused', async (listen, fault) => expect(await faultsOf(listen)).toEqual([fault]));

  it('may have a certificate that has ended, which is warned of', async () => {
    const result = await load('{ address: "127.0.0.1:1", tls: { cert: ended.crt, key: ended.key } }');
    expect(result).toMatchObject({ ok: true, warnings: [{ path: 'listen.tls.cert', message: 'a certificate in it ended on 2025-01-01' }] });
  });

  it('shows no key in a fault, nor when the configuration is shown', async () => {
    const given = {
      version: 1,
      legacy: { url: 'http://a' },
      listen: [{ address: '127.0.0.1:1', tls: [{ cert: other.cert, key: shop.key }] }],
    } as const;
    const result = await loadConfig({
      object: { ...given, listen: [...given.listen].map((one) => ({ ...one, tls: [...one.tls] })) },
      env: {},
    });
    expect(result.ok ? '' : result.faults.map(formatFault).join('\n')).toMatch(/is not the key of cert(?![\s\S]*PRIVATE)/);
    expect(
      JSON.stringify(maskSecrets({ listen: await listenOf('{ address: "127.0.0.1:1", tls: { cert: shop.crt, key: shop.key } }') })),
    ).toContain('"key":"***"');
  });
});
