import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { canonicalTemplate, createRouteNamer, labelOfTemplate, type TemplateRule } from './route-names.ts';

const LABEL = 'GET /api/**';
const rulesOf = (rules: readonly TemplateRule[]): ReadonlyMap<string, TemplateRule> => new Map(rules.map((rule) => [rule.at, rule]));
const hex = (i: number, n: number): string => (i * 2_654_435_761).toString(16).padStart(n, '0').slice(-n);

describe('routes named as requests come', () => {
  it('are exactly six for 10,000 targets of six shapes (scenario 9)', () => {
    const words = ['red', 'blue', 'oak', 'fig', 'shade', 'root', 'leaf', 'bark'];
    const makers: ((i: number) => string)[] = [
      (i) => `/api/orders/${i}?page=${i}`,
      (i) => `/api/users/${hex(i, 8)}-${hex(i + 1, 4)}-4${hex(i, 3)}-8${hex(i, 3)}-${hex(i * 7, 12)}`,
      (i) =>
        `/api/carts/01${(i * 7_919)
          .toString(32)
          .toUpperCase()
          .replace(/[ILOU]/g, 'X')
          .padStart(24, '0')}/items`,
      (i) => `/api/products/${words[i % 8]}-${words[(i >> 3) % 8]}-${words[(i >> 6) % 8]}`,
      (i) => `/api/reports/20${10 + (i % 20)}-0${1 + (i % 9)}-1${i % 10}`,
      (i) => `/api/${['en', 'de', 'fr-FR', 'pt_BR'][Math.floor(i / 6) % 4]}/home`,
    ];
    const namer = createRouteNamer();
    const named = Array.from({ length: 10_000 }, (_, i) => namer.name(LABEL, makers[i % 6]!(i)));
    const rules = rulesOf(namer.found());
    const wanted = ['/:locale/home', '/carts/:ulid/items', '/orders/:id', '/products/:slug', '/reports/:date', '/users/:uuid'];
    // rows written before something was found are put together with those after it by the same rules
    expect([...new Set(named.map((name) => canonicalTemplate(name, rules)))].sort()).toEqual(wanted.map((path) => `GET /api${path}`));
    expect([...new Set(named.slice(1_000))].sort()).toEqual(wanted.map((path) => `GET /api${path}`));
  });
  it('keep what the configuration spells out, and static siblings of data', () => {
    const namer = createRouteNamer();
    expect(namer.name('GET /api/orders/:id', '/api/orders/17')).toBe('GET /api/orders/:id');
    expect(namer.name('/api/orders/**', '/api/orders')).toBe('/api/orders');
    expect(namer.name('/api/orders/**', '/api/orders/17/lines/3?x=1')).toBe('/api/orders/:id/lines/:id');
    expect(namer.name('/api/orders/**', '/api/orders/export')).toBe('/api/orders/export');
    expect(namer.name('GET /**', '/')).toBe('GET /');
    expect(namer.name('GET /a/**/end', '/a/7/b/end')).toBe('GET /a/:id/b/end');
    expect(namer.name('/api/orders/**', '/api/orders/:id/**')).toBe('/api/orders/%3Aid/%2A*');
  });
  it('keep a busy name among many', () => {
    const namer = createRouteNamer();
    for (let i = 0; i < 40; i++) {
      namer.name(LABEL, '/api/p/search');
      namer.name(LABEL, `/api/p/name-${String.fromCharCode(97 + (i % 26))}${i}`);
    }
    expect(namer.found()).toEqual([{ at: 'GET /api/p', kept: ['search'], locale: false }]);
    expect(namer.name(LABEL, '/api/p/search')).toBe('GET /api/p/search');
    expect(namer.name(LABEL, '/api/p/anything')).toBe('GET /api/p/:slug');
  });
  it('never become more than 200 and one, whatever is asked', () => {
    const namer = createRouteNamer();
    const names = new Set<string>();
    for (let i = 0; i < 50_000; i++) names.add(namer.name(LABEL, `/api/a${i % 29}x/b${i % 28}y/c${i % 27}z/${i % 26}w`));
    expect(names.size).toBeLessThanOrEqual(201);
    expect(names).toContain(LABEL);
  });
  it('agree with another gateway that has its rules, and count what others use', () => {
    const [here, there] = [createRouteNamer(), createRouteNamer()];
    for (let i = 0; i < 20; i++) there.seen(LABEL, here.name(LABEL, `/api/p/name-x${i}y`));
    for (let i = 20; i < 31; i++) there.name(LABEL, `/api/p/name-x${i}y`);
    for (const rule of there.found()) here.learn(rule);
    expect(here.name(LABEL, '/api/p/name-x3y')).toBe('GET /api/p/:slug');
  });
  it('are never changed twice by the same rules', () => {
    fc.assert(
      fc.property(fc.array(fc.webPath(), { maxLength: 80 }), (targets) => {
        const namer = createRouteNamer();
        const named = targets.map((target) => namer.name('/**', target));
        const rules = rulesOf(namer.found());
        for (const name of named) {
          const once = canonicalTemplate(name, rules);
          expect(canonicalTemplate(once, rules)).toBe(once);
        }
      }),
    );
  });
  it('belong to the most specific configured route that covers them', () => {
    const labels = ['GET /**', 'GET /api/orders/**', 'GET /api/orders/:id', '/api/orders/**'];
    expect(labelOfTemplate('GET /api/orders/:id', labels)).toBe('GET /api/orders/:id');
    expect(labelOfTemplate('GET /api/orders/:id/lines', labels)).toBe('GET /api/orders/**');
    expect(labelOfTemplate('GET /api/orders', labels)).toBe('GET /api/orders/**');
    expect(labelOfTemplate('GET /api/other', labels)).toBe('GET /**');
    expect(labelOfTemplate('/api/orders/export', labels)).toBe('/api/orders/**');
    expect(labelOfTemplate('/other', labels)).toBeUndefined();
  });
});
