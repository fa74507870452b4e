import { checkEventData } from '@banyan/contracts/events/index.ts';
import { describe, expect, it } from '@jest/globals';
import { buildEvents, buildTentative, type CommandFacts, compileEvents, knownAggregate, matchPath } from './event-mapping.ts';
import { jsonPath } from './json-path.ts';

const rules = compileEvents([
  {
    when: 'POST /api/orders 2xx',
    type: 'order.placed.v1',
    aggregate: '$.response.body.id',
    data: { id: '$.response.body.id', userId: '$.request.body.userId', items: '$.request.body.items', ref: 'header:Idempotency-Key' },
  },
  { when: 'POST /api/orders/:id/cancel 204', type: 'order.cancelled.v1', aggregate: '$.params.id', data: { id: '$.params.id' } },
]);

const placed = (over: { status?: number; body?: unknown; target?: string; request?: unknown } = {}): CommandFacts => ({
  request: {
    method: 'POST',
    target: over.target ?? '/api/orders?x=1',
    body: over.request ?? { userId: 'u1', items: [{ productId: 7, quantity: 1 }] },
    headers: { 'idempotency-key': 'k-1', cookie: 'a=1; session=abc' },
  },
  response: { status: over.status ?? 201, headers: {}, body: 'body' in over ? over.body : { id: 1006 } },
});

describe('event mapping', () => {
  it('builds subject and an explicit field list from request, answer and headers', () => {
    expect(buildEvents(rules, placed(), checkEventData)).toEqual({
      kind: 'built',
      events: [
        {
          type: 'order.placed.v1',
          subject: '1006',
          data: { id: 1006, userId: 'u1', items: [{ productId: 7, quantity: 1 }], ref: 'k-1' },
        },
      ],
    });
  });

  it('reads path parameters on a normalised copy of the path', () => {
    const cancel = { ...placed({ target: '/api//orders/./a%2Fb/cancel', status: 204, body: undefined }) };
    expect(buildEvents(rules, cancel, checkEventData)).toMatchObject({ kind: 'built', events: [{ subject: 'a/b', data: { id: 'a/b' } }] });
  });

  it.each([
    ['a path that no rule names', placed({ target: '/api/products' }), { kind: 'none' }],
    ['a status that no rule covers', placed({ target: '/api/orders/7/cancel', status: 200 }), { kind: 'unmapped' }],
    ['an answer without the id', placed({ body: {} }), { kind: 'unbuildable', why: 'order.placed.v1: the aggregate is missing' }],
    ['an answer that is no JSON', placed({ body: undefined }), { kind: 'unbuildable' }],
    ['an empty subject', placed({ body: { id: '' } }), { kind: 'unbuildable' }],
    ['a field that the schema refuses', placed({ request: { userId: 7, items: [] } }), { kind: 'unbuildable' }],
    ['a character that jsonb refuses', placed({ request: { userId: 'a\0b', items: [] } }), { kind: 'unbuildable' }],
  ])('says so for %s', (_, facts, expected) => {
    expect(buildEvents(rules, facts, checkEventData)).toMatchObject(expected);
  });

  it('takes functions, query, cookie and status', () => {
    const [rule] = compileEvents([
      {
        when: 'POST /a 2xx',
        type: 'x.done.v1',
        aggregate: (view) => view.params.none ?? 'one',
        data: { q: 'query:q', c: 'cookie:session', s: 'status', n: 'query:none' },
      },
    ]);
    expect(buildEvents([rule!], placed({ target: '/a?q=1+2%20%zz' }), checkEventData)).toMatchObject({
      events: [{ subject: 'one', data: { q: '1 2%20%zz', c: 'abc', s: 201 } }],
    });
  });

  it('knows the aggregate beforehand only where the request names it', () => {
    expect(knownAggregate(rules, placed())).toBeNull();
    expect(knownAggregate(rules, placed({ target: '/api/orders/7/cancel' }))).toBe('7');
    expect(knownAggregate(rules, placed({ target: '/else' }))).toBeNull();
  });

  it('builds a tentative event from the request alone', () => {
    const tentative = compileEvents([
      { when: 'PUT /c/:id 2xx', type: 'c.set.v1', aggregate: '$.params.id', data: { v: '$.request.body.v' }, mode: 'tentative' },
    ]);
    const facts: CommandFacts = { request: { method: 'PUT', target: '/c/5', body: { v: 1 }, headers: {} }, response: null };
    expect(buildTentative(tentative, facts, checkEventData)).toEqual({
      kind: 'built',
      events: [{ type: 'c.set.v1', subject: '5', data: { v: 1 } }],
    });
    expect(buildTentative(rules, placed(), checkEventData)).toEqual({ kind: 'none' });
  });

  it.each(['POST /x', 'post /x 2xx', 'POST x 2xx', 'POST /x 6xx'])('refuses when "%s"', (when) => {
    expect(() => compileEvents([{ when, type: 'x.y.v1', aggregate: '$.params.id', data: '$.request.body' }])).toThrow(
      'METHOD /path STATUS',
    );
  });

  it('refuses what would run code, and what is no path', () => {
    for (const path of ['$.a[?(@.b)]', 'a.b', '$.a[(1)]', '$a', '$.a b', '$.']) expect(() => jsonPath(path)).toThrow();
    expect(() => compileEvents([{ when: 'POST /x 2xx', type: 'x.y.v1', aggregate: 'id', data: '$' }])).toThrow('x.y.v1: aggregate');
  });

  it.each([
    ['$.items[*].id', [1, 2, 3]],
    ['$.items[-1].id', 3],
    ['$.items[0,2].id', [1, 3]],
    ['$.items[1:].id', [2, 3]],
    ['$.items[::2].id', [1, 3]],
    ['$..id', [1, 2, 3]],
    ['$.items[7].id', undefined],
    ['$.deep.*', ['x']],
    ['$', { items: [{ id: 1 }, { id: 2 }, { id: 3 }], deep: { a: 'x' } }],
  ])('finds %s', (path, expected) => {
    expect(jsonPath(path)({ items: [{ id: 1 }, { id: 2 }, { id: 3 }], deep: { a: 'x' } })).toEqual(expected);
  });

  it('takes conditions that the configuration has read', () => {
    const when = { method: 'POST', pathPattern: '/a%20b/:id', statusClass: null, status: 201 };
    const events = compileEvents([{ when, type: 'x.y.v1', aggregate: '$.params.id', data: {} }]);
    expect(buildEvents(events, placed({ target: '/a%20b/7' }), checkEventData)).toMatchObject({ events: [{ subject: '7' }] });
  });

  it('never reads what an object inherits', () => {
    expect(jsonPath('$.constructor.name')({})).toBeUndefined();
    expect(jsonPath("$['__proto__']")({})).toBeUndefined();
    expect(jsonPath("$['a b'][1].c")({ 'a b': [0, { c: 5 }] })).toBe(5);
  });

  it.each([
    ['/api/orders/:id', '/api/orders/7?x', { id: '7' }],
    ['/api/orders/:id', '/api/orders', null],
    ['/api/**', '/api', {}],
    ['/a/**/z/:id', '/a/b/c/z/9', { id: '9' }],
    ['/a', '/b/../a/', {}],
  ])('matches %s against %s', (pattern, target, params) => {
    expect(matchPath(pattern, target)).toEqual(params);
  });
});
