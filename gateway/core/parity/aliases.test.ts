import { describe, expect, it } from '@jest/globals';
import { createAliases } from './aliases.ts';
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
    answer({ id: 17, total: 5, items: [{ lineId: 'l-1', n: 1 }] }, 201, [['Location', '/orders/17']]),
    answer({ id: 'b-9', total: 6, items: [{ lineId: 'm-1', n: 2 }] }, 201, [['Location', '/orders/b-9']]),
  );
  it('are rewritten in targets and bodies, and nothing else is', () => {
    expect(aliases.target('/orders/17/lines/l-1?page=17&orderId=17')).toBe('/orders/b-9/lines/m-1?page=17&orderId=b-9');
    expect(aliases.target('/orders/5')).toBe('/orders/5');
    const body = utf8.encode('{"orderId":17,"quantity":17,"lineIds":["l-1"],"price":1.50}');
    expect(new TextDecoder().decode(aliases.body(body, 'application/json'))).toBe(
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
    none.learn(answer({ id: 1 }, 422), answer({ id: 2 }, 201));
    expect(none.target('/1')).toBe('/1');
  });
});
