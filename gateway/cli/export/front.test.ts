import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { compileRoutes } from '../../core/match.ts';
import { normalisePath } from '../../proxy/path.ts';
import { ownedPaths } from './front.ts';

const seenByGateway = (owned: ReturnType<typeof ownedPaths>, path: string): boolean =>
  owned.some((one) => (one.exact ? path === one.path : path.startsWith(one.path)));

describe('ownedPaths', () => {
  it.each([
    [['/api/orders'], ['= /api/orders', '= /api/orders/']],
    [
      ['/api/orders/**', '/api/orders', '/api/orders/:id/cancel'],
      ['= /api/orders', '/api/orders/'],
    ],
    [['/:tenant/orders'], ['/']],
    [['/**', '/api/orders'], ['/']],
    [['/'], ['= /']],
    [['/a b/c', '/x{y}/z'], ['/']],
    [['/api/a%20b/c'], ['= /api', '/api/']],
    [[], []],
  ])('of %j are %j', (patterns, expected) => {
    expect(ownedPaths(patterns).map(({ path, exact }) => `${exact ? '= ' : ''}${path}`)).toEqual(expected);
  });

  it('cover every path that a context owns, whatever the patterns', () => {
    const segment = fc.constantFrom('api', 'orders', ':id', '**', 'a.b', 'x%20y', '17');
    const pattern = fc.uniqueArray(segment, { maxLength: 4 }).map((parts) => `/${parts.join('/')}`);
    const path = fc
      .array(fc.constantFrom('api', 'orders', '17', 'a.b', 'x%20y', '', 'z'), { maxLength: 5 })
      .map((parts) => `/${parts.join('/')}`);
    fc.assert(
      fc.property(fc.array(pattern, { maxLength: 4 }), path, (patterns, raw) => {
        const routes = compileRoutes(patterns.map((one) => ({ context: 'c', path: one, methods: null, rest: null })));
        const normal = normalisePath(raw);
        if (normal === null || routes.match('GET', normal).kind === 'none') return true;
        return seenByGateway(ownedPaths(patterns), normal);
      }),
      { numRuns: 2_000 },
    );
  });
});
