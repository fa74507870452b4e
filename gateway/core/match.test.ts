import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { compileRoutes } from './match.ts';

const routes = compileRoutes([
  { context: 'order', path: '/api/orders/**', methods: ['GET', 'HEAD'], rest: 'read' },
  { context: 'order', path: '/api/orders', methods: ['POST'], rest: 'place' },
  { context: 'order', path: '/api/orders/:id/cancel', methods: ['POST'], rest: 'cancel' },
  { context: 'order', path: '/api/orders/special', methods: ['GET'], rest: 'special' },
  { context: 'search', path: '/api/**/search/:term', methods: null, operation: 'query', rest: 'search' },
]);
const find = (method: string, path: string) => {
  const match = routes.match(method, path);
  return match.kind === 'route' ? match.route.rest : match.kind;
};

describe('compileRoutes', () => {
  it.each([
    ['GET', '/api/orders', 'read'],
    ['GET', '/api/orders/', 'read'],
    ['GET', '/api/orders/17', 'read'],
    ['GET', '/api/orders/17/items/2', 'read'],
    ['GET', '/api/orders/special', 'special'],
    ['HEAD', '/api/orders/special', 'read'],
    ['POST', '/api/orders', 'place'],
    ['POST', '/api/orders/', 'place'],
    ['POST', '/api/orders/17/cancel', 'cancel'],
    ['POST', '/api/orders//cancel', 'unowned-method'],
    ['DELETE', '/api/orders/17', 'unowned-method'],
    ['GET', '/api/ordersx', 'none'],
    ['GET', '/', 'none'],
    ['POST', '/api/a/b/search/shoes', 'search'],
    ['POST', '/api/search/shoes', 'search'],
  ])('%s %s -> %s', (method, path, expected) => {
    expect(find(method, path)).toBe(expected);
  });
  it('names parameters, also behind **', () => {
    expect(routes.match('POST', '/api/orders/17/cancel')).toMatchObject({ params: { id: '17' }, operation: 'command' });
    expect(routes.match('POST', '/api/a/b/search/shoes')).toMatchObject({ params: { term: 'shoes' }, operation: 'query' });
  });
  it('never throws, whatever the path', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (method, path) => {
        routes.match(method, path);
      }),
    );
  });
});
