import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { loadConfig } from './config.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'banyan-adapter-config-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const env = { DATABASE_URL: 'postgres://store/s', LEGACY_DATABASE_URL: 'postgres://legacy/l' };
const yaml = (text: string): string[] => {
  const file = join(folder, 'banyan.yaml');
  writeFileSync(file, text);
  return ['--config', file];
};

describe('loadConfig', () => {
  it('reads the environment alone: every context, published by the ledger', () => {
    expect(loadConfig([], env)).toEqual({
      host: '127.0.0.1',
      port: 8090,
      storeUrl: env.DATABASE_URL,
      legacyUrl: env.LEGACY_DATABASE_URL,
      token: null,
      contexts: null,
      install: true,
    });
  });
  it('lets the file win, expands variables in its own keys only, and falls back where the file is empty', () => {
    const text = `
adapter: { url: "http://[::1]:9000", legacyDatabase: "\${SHOP:-postgres://shop/x}" }
store: "\${STORE:-}"
admin: { tokens: [ { token: "\${NOT_OURS}" } ] }
contexts: { order: { publisher: capture, extracted: { url: "\${NOT_OURS}" } }, inventory: {}, billing: }
`;
    expect(loadConfig([...yaml(text), '--no-install'], { ...env, PORT: '1', BANYAN_ADAPTER_TOKEN: 't' })).toEqual({
      host: '::1',
      port: 9000,
      storeUrl: env.DATABASE_URL,
      legacyUrl: 'postgres://shop/x',
      token: 't',
      contexts: new Map([
        ['order', 'capture'],
        ['inventory', 'ledger'],
        ['billing', 'ledger'],
      ]),
      install: false,
    });
  });
  it('offers help', () => {
    expect(loadConfig(['--help'], {})).toEqual({ help: expect.stringContaining('--no-install') });
  });
  it.each<[string, string[], Record<string, string>, string | null, RegExp]>([
    [
      'no database',
      [],
      { LEGACY_DATABASE_URL: '' },
      null,
      /adapter\.legacyDatabase \(or LEGACY_DATABASE_URL\) must be a postgres:\/\/ URL, but it is not set/,
    ],
    ['a database of another kind', [], { DATABASE_URL: 'mysql://x' }, null, /store \(or DATABASE_URL\) must be a postgres:\/\/ URL$/],
    ['capture modes to come', [], {}, 'adapter: { capture: outbox }', /adapter\.capture: outbox is not supported yet, use trigger/],
    ['a capture mode that is none', [], {}, 'adapter: { capture: magic }', /adapter\.capture must be trigger, not "magic"/],
    ['an unknown publisher', [], {}, 'contexts: { order: { publisher: me } }', /contexts\.order\.publisher/],
    ['broken YAML', [], {}, 'adapter: {', /banyan\.yaml/],
    ['a list', [], {}, '- 1', /must be a mapping/],
    ['a missing variable', [], {}, `store: "$${'{NO_SUCH_VARIABLE}'}"`, /store: the variable NO_SUCH_VARIABLE is not set/],
    ['a URL that is none', [], {}, 'adapter: { url: here }', /adapter\.url "here" is no URL/],
    ['TLS', [], {}, 'adapter: { url: "https://127.0.0.1" }', /must begin with http:/],
    ['a missing file', ['--config', '/nonexistent/banyan.yaml'], {}, null, /cannot be read/],
    ['a missing name', ['--config'], {}, null, /--config needs the name of a file/],
    ['an unknown argument', ['--frobnicate'], {}, null, /unknown argument "--frobnicate"/],
    ['a public address without token', [], { HOST: '0.0.0.0' }, null, /without BANYAN_ADAPTER_TOKEN only a loopback address/],
    ['a port that is none', [], { PORT: '99999' }, null, /PORT must be a number from 0 to 65535/],
  ])('refuses %s', (_name, args, more, text, message) => {
    expect(() => loadConfig(text === null ? args : yaml(text), { ...env, ...more })).toThrow(message);
  });
});
