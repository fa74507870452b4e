import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { inferTemplates } from './template.ts';

const of = (targets: readonly string[]): string[] => [...new Set(inferTemplates(targets).values())].sort();
const hex = (i: number, n: number): string => (i * 2_654_435_761).toString(16).padStart(n, '0').slice(-n);

describe('templates inferred from targets', () => {
  it('finds exactly six shapes in 10,000 targets', () => {
    const words = ['red', 'blue', 'oak', 'fig', 'shade', 'root', 'leaf', 'bark'];
    const makers: ((i: number) => string)[] = [
      (i) => `/orders/${i}?page=${i}`,
      (i) => `/users/${hex(i, 8)}-${hex(i + 1, 4)}-4${hex(i, 3)}-8${hex(i, 3)}-${hex(i * 7, 12)}`,
      (i) =>
        `/carts/01${(i * 7_919)
          .toString(32)
          .toUpperCase()
          .replace(/[ILOU]/g, 'X')
          .padStart(24, '0')}/items`,
      (i) => `/products/${words[i % 8]}-${words[(i >> 3) % 8]}-${words[(i >> 6) % 8]}`,
      (i) => `/reports/20${10 + (i % 20)}-0${1 + (i % 9)}-1${i % 10}`,
      (i) => `/${['en', 'de', 'fr-FR', 'pt_BR'][Math.floor(i / 6) % 4]}/home`,
    ];
    const targets = Array.from({ length: 10_000 }, (_, i) => makers[i % 6]!(i));
    expect(of(targets)).toEqual([
      '/:locale/home',
      '/carts/:ulid/items',
      '/orders/:id',
      '/products/:slug',
      '/reports/:date',
      '/users/:uuid',
    ]);
  });
  it('keeps static siblings, also a busy one among many slugs', () => {
    expect(of(['/orders/1', '/orders/2', '/orders/export', '/me', '/go'])).toEqual(['/go', '/me', '/orders/:id', '/orders/export']);
    const slugs = Array.from({ length: 100 }, (_, i) => `/p/name-${String.fromCharCode(97 + (i % 26))}${i}`);
    expect(of([...slugs, ...Array.from({ length: 30 }, () => '/p/search')])).toEqual(['/p/:slug', '/p/search']);
  });
  it('never makes more than 200 and never depends on the order', () => {
    const many = Array.from({ length: 1_000 }, (_, i) => `/a${i % 25}/b${i % 30}/c${i % 20}`);
    expect(of(many).length).toBeLessThanOrEqual(200);
    expect(of(many)).toContain('(other)');
    fc.assert(
      fc.property(fc.array(fc.webPath(), { maxLength: 40 }), (targets) => {
        const [there, back] = [inferTemplates(targets), inferTemplates([...targets].reverse())];
        for (const target of targets) expect(back.get(target)).toBe(there.get(target));
      }),
    );
  });
});
