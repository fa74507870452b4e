import { describe, expect, it } from '@jest/globals';
import { createAliases, MAX_ALIASES } from './aliases.ts';
import { compareObservations } from './compare.ts';
import type { Observation } from './observation.ts';
import { compileRules } from './rules.ts';

const utf8 = new TextEncoder();
const answer = (value: unknown, status = 200, headers: [string, string][] = []): Observation => ({
  status,
  headers: [['Content-Type', 'application/json'], ...headers],
  body: utf8.encode(JSON.stringify(value)),
  complete: true,
});
const rules = compileRules({}, 0);

describe('ids that both sides mint', () => {
  const aliases = createAliases();
  aliases.learn(
    '/orders',
    answer({ id: 17, total: 5, items: [{ lineId: 'l-1', n: 1 }] }, 201, [['Location', '/orders/17']]),
    answer({ id: 'b-9', total: 6, items: [{ lineId: 'm-1', n: 2 }] }, 201, [['Location', '/orders/b-9']]),
  );
  it('are rewritten in targets and bodies, and nothing else is', () => {
    expect(aliases.target('/orders/17/lines/l-1?page=17&orderId=17', 'extracted')).toBe('/orders/b-9/lines/m-1?page=17&orderId=b-9');
    expect(aliases.target('/orders/5', 'extracted')).toBe('/orders/5');
    const body = utf8.encode('{"orderId":17,"quantity":17,"lineIds":["l-1"],"price":1.50}');
    expect(new TextDecoder().decode(aliases.body(body, 'application/json', 'extracted'))).toBe(
      '{"orderId":"b-9","quantity":17,"lineIds":["m-1"],"price":1.50}',
    );
  });
  it('are noise in later pairs, where anything else stays a difference', () => {
    const verdict = compareObservations(
      answer({ ref: 'l-1', total: 5, a: { id: '17' } }, 200, [['Link', 'x']]),
      answer({ ref: 'm-1', total: 6, a: { id: 'b-9' } }, 200, [['Link', 'x']]),
      rules,
    );
    expect(aliases.excuse(verdict)).toMatchObject({
      kind: 'mismatch',
      differences: [{ path: '$.total' }],
      noise: [
        { path: '$.ref', rule: 'alias' },
        { path: '$.a.id', rule: 'alias' },
      ],
    });
    const redirect = compareObservations(
      answer({}, 200, [['Location', '/orders/17']]),
      answer({}, 200, [['Location', '/orders/b-9']]),
      rules,
    );
    expect(aliases.excuse(redirect).kind).toBe('noise');
    const amount = compareObservations(answer({ paid: '17' }), answer({ paid: 'b-9' }), rules);
    expect(aliases.excuse(amount).kind).toBe('mismatch');
    const wrong = compareObservations(answer({ id: '17' }), answer({ id: 'b-8' }), rules);
    expect(aliases.excuse(wrong).kind).toBe('mismatch');
  });
  it('are not learned from refusals', () => {
    const none = createAliases();
    none.learn('/orders', answer({ id: 1 }, 422), answer({ id: 2 }, 201));
    expect(none.target('/orders/1', 'extracted')).toBe('/orders/1');
  });
  it('are rewritten for either side, and what was learned can be handed on', () => {
    const here = createAliases();
    const learned = here.learn('/orders', answer({ id: 17 }, 201), answer({ id: 'b-9' }, 201));
    expect(learned).toEqual([{ word: 'order', legacy: '17', extracted: 'b-9' }]);
    expect(here.learn('/orders', answer({ id: 17 }, 201), answer({ id: 'b-9' }, 201))).toEqual([]);
    const there = createAliases();
    for (const alias of learned) there.remember(alias);
    expect(there.target('/orders/b-9/lines', 'legacy')).toBe('/orders/17/lines');
    expect(there.target('/orders/17/lines', 'legacy')).toBe('/orders/17/lines');
  });
  it('of short numbers hold for one kind of thing only', () => {
    const two = createAliases();
    two.learn('/orders', answer({ id: 17, payment: { id: 3 } }, 201), answer({ id: 40, payment: { id: 8 } }, 201));
    expect(two.target('/orders/17', 'extracted')).toBe('/orders/40');
    expect(two.target('/payments/3', 'extracted')).toBe('/payments/8');
    expect(two.target('/products/17', 'extracted')).toBe('/products/17');
    expect(two.target('/orders/3?paymentId=3&productId=3', 'extracted')).toBe('/orders/3?paymentId=8&productId=3');
  });
  it('are found in links, and a link to something else stays a difference', () => {
    const links = compareObservations(answer({ self: '/orders/17?x=1' }), answer({ self: '/orders/b-9?x=1' }), rules);
    expect(aliases.excuse(links).kind).toBe('noise');
    const wrong = compareObservations(answer({ self: '/orders/17' }), answer({ self: '/orders/b-8' }), rules);
    expect(aliases.excuse(wrong).kind).toBe('mismatch');
  });
  it('are bounded: the oldest go first', () => {
    const many = createAliases();
    for (let i = 0; i <= MAX_ALIASES; i++) many.remember({ word: 'order', legacy: `l-${i}`, extracted: `e-${i}` });
    expect(many.size()).toBe(MAX_ALIASES);
    expect(many.target('/orders/l-0', 'extracted')).toBe('/orders/l-0');
    expect(many.target(`/orders/l-${MAX_ALIASES}`, 'extracted')).toBe(`/orders/e-${MAX_ALIASES}`);
  });
});
