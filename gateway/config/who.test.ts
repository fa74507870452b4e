import { describe, expect, it } from '@jest/globals';
import { loadConfig } from '../config.ts';
import { maskSecrets } from './secrets.ts';

const SECRET = 'a-secret-of-at-least-thirty-two-characters';

const load = (more: string, context = '') =>
  loadConfig({
    text: `version: 1\nlegacy: { url: http://127.0.0.1:1 }\nseal: { key: a-seal-key }\n${more}\ncontexts:\n  order:\n    match: [ { path: /o/:id, methods: [ GET ] } ]\n    else: legacy\n${context}\n`,
    env: {},
  });
const faults = async (more: string, context = ''): Promise<string[]> => {
  const loaded = await load(more, context);
  return loaded.ok ? [] : loaded.faults.map(({ path }) => path);
};
const warnings = async (more: string, context = ''): Promise<string[]> => (await load(more, context)).warnings.map(({ path }) => path);

describe('who a request belongs to', () => {
  it('reads every kind of sticky key and condition', async () => {
    const loaded = await load(
      `jwt: { key: ${SECRET}, issuer: me }\nopenfeature: { provider: ofrep, url: "http://127.0.0.1:1" }\nidentity: { from: GET /whoami on legacy }`,
      `    stickyKey: [ "header:X-User", "cookie:Sid", "jwt:https://acme/tenant", "path:id", "query:user" ]
    overrides: [ { to: extracted, when: "header:X-Beta" }, { to: legacy, when: "cookie:a=b=c" }, { to: legacy, when: "jwt:sub=x y" }, { to: legacy, when: "cidr:fd00::/8" } ]
    openfeature: { decides: share }`,
    );
    expect(loaded.ok && loaded.config.contexts.order).toMatchObject({
      stickyKey: [
        { from: 'header', name: 'x-user' },
        { from: 'cookie', name: 'Sid' },
        { from: 'jwt', name: 'https://acme/tenant' },
        { from: 'path', name: 'id' },
        { from: 'query', name: 'user' },
      ],
      overrides: [
        { to: 'extracted', when: { from: 'header', name: 'x-beta', value: null } },
        { to: 'legacy', when: { from: 'cookie', name: 'a', value: 'b=c' } },
        { to: 'legacy', when: { from: 'jwt', name: 'sub', value: 'x y' } },
        { to: 'legacy', when: { from: 'cidr', name: 'fd00::/8', value: null } },
      ],
      openfeature: { flag: null, decides: 'share' },
    });
    expect(loaded.ok && loaded.config.identity).toMatchObject({
      from: { path: '/whoami' },
      cache: 30_000,
      timeout: 500,
      as: { header: 'x-banyan-identity' },
    });
  });

  it.each([
    ['jwt: {}', '', 'jwt'],
    [`jwt: { key: ${SECRET}, jwks: "https://x/y" }`, '', 'jwt'],
    ['jwt: { key: short }', '', 'jwt.key'],
    ['jwt: { key: "-----BEGIN PUBLIC KEY-----\\nnone\\n-----END PUBLIC KEY-----" }', '', 'jwt.key'],
    ['jwt: { jwks: nowhere }', '', 'jwt.jwks'],
    ['overrideToken: {}', '', 'overrideToken'],
    ['identity: { from: POST /whoami }', '', 'identity.from'],
    ['identity: { from: GET /whoami, as: header:cookie }', '', 'identity.as'],
    ['identity: { from: GET /whoami, as: header:banyan-epoch }', '', 'identity.as'],
    ['openfeature: { provider: ofrep }', '', 'openfeature.provider'],
    ['openfeature: { provider: flagd }', '', 'openfeature.provider'],
    ['', '    openfeature: {}', 'contexts.order.openfeature'],
    ['', '    stickyKey: "path:user"', 'contexts.order.stickyKey[0]'],
    ['', '    stickyKey: "jwt:"', 'contexts.order.stickyKey'],
    ['', '    overrides: [ { to: extracted, when: "jwt:tenant=acme" } ]', 'contexts.order.overrides[0].when'],
    ['', '    overrides: [ { to: extracted, when: "cidr:10.0.0.0/33" } ]', 'contexts.order.overrides[0].when'],
    ['', '    overrides: [ { to: extracted, when: "cidr:" } ]', 'contexts.order.overrides[0].when'],
    ['', '    overrides: [ { to: shadow, when: "header:x" } ]', 'contexts.order.overrides[0].to'],
    ['', '    overrides: [ { to: legacy, when: "ip:1.2.3.4" } ]', 'contexts.order.overrides[0].when'],
  ])('%s %s is a fault at %s', async (more, context, path) => {
    expect(await faults(more, context)).toEqual([path]);
  });

  it('warns of tokens that nobody verifies and of keys that come in the clear', async () => {
    expect(await warnings('', '    stickyKey: "jwt:sub"')).toEqual(['contexts.order.stickyKey[0]']);
    expect(await warnings('jwt: { jwks: "http://login.example/keys" }')).toEqual(['jwt.jwks']);
  });

  it('shows no key', async () => {
    const loaded = await load(
      `jwt: { key: ${SECRET} }\noverrideToken: { key: ${SECRET} }\nidentity: { from: GET /whoami, key: ${SECRET} }\nopenfeature: { provider: ofrep, url: "http://127.0.0.1:1", token: ${SECRET} }`,
    );
    expect(loaded.ok).toBe(true);
    expect(JSON.stringify(loaded.ok && maskSecrets(loaded.config))).not.toContain(SECRET);
    const refused = await load(`jwt: { key: ${SECRET}, jwks: "https://x" }\noverrideToken: { key: [ ${SECRET} ] }`);
    expect(refused.ok).toBe(false);
    expect(JSON.stringify(refused)).not.toContain(SECRET);
  });
});
