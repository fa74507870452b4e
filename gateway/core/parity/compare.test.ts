import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { compareObservations } from './compare.ts';
import type { Observation, Verdict } from './observation.ts';
import { verdictDocument } from './observation.ts';
import { compileRules, type ParityRules } from './rules.ts';

const utf8 = new TextEncoder();
const NOW = Date.parse('2026-06-01');
const answer = (
  body: string | Uint8Array | null,
  headers: [string, string][] = [['Content-Type', 'application/json']],
  status = 200,
): Observation => ({
  status,
  headers,
  body: typeof body === 'string' ? utf8.encode(body) : body,
  complete: true,
});
const compare = (a: string, b: string, rules: ParityRules = {}): Verdict =>
  compareObservations(answer(a), answer(b), compileRules(rules, NOW));
const differences = (a: string, b: string, rules: ParityRules = {}): unknown => {
  const verdict = compare(a, b, rules);
  return verdict.kind === 'mismatch' ? verdict.differences : verdict;
};
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

describe('JSON bodies', () => {
  it.each([
    ['another member order', '{"a":1,"b":[2,{"c":3,"d":4}]}', '{"b":[2,{"d":4,"c":3}],"a":1}'],
    ['white space', '{"a":1}', ' {\n"a" : 1 }\n'],
    ['another spelling of a number', '[1.0,1e2,0.10,-0,12e-1,100]', '[1,100,0.1,0,1.2,1.0E+2]'],
    ['another spelling of a string', '"\\u0061\\/"', '"a/"'],
    ['the same repeats of a key', '{"a":1,"a":2,"b":3}', '{"b":3,"a":1,"a":2}'],
    ['the same lone surrogate', '"\\ud800"', '"\\uD800"'],
  ])('matches %s', (_name, a, b) => {
    expect(compare(a, b)).toEqual({ kind: 'match' });
  });

  it.each([
    ['$.total', 'value', '{"total":10.00}', '{"total":10.01}'],
    ['$', 'value', '9007199254740993', '9007199254740992'],
    ['$', 'value', '10000000000000000999', '10000000000000001000'],
    ['$', 'type', '1', '"1"'],
    ['$.a', 'type', '{"a":null}', '{"a":{}}'],
    ['$.a', 'missing', '{"a":1}', '{}'],
    ['$.a', 'extra', '{}', '{"a":1}'],
    ['$.a', 'duplicate-key', '{"a":1,"a":2}', '{"a":2}'],
    ['$.items[2].total', 'value', '{"items":[1,2,{"total":3}]}', '{"items":[1,2,{"total":4}]}'],
    ["$['a b']['it\\'s']", 'value', '{"a b":{"it\'s":1}}', '{"a b":{"it\'s":2}}'],
    ['$.__proto__', 'value', '{"__proto__":1}', '{"__proto__":2}'],
    ['$', 'order', '[1,2,3]', '[3,1,2]'],
    ['$', 'unparsable', '{"x":NaN}', '{"x":1}'],
    ['$', 'unparsable', '{"x":NaN}', '{"x":Infinity}'],
    ['$', 'encoding', '\uFEFF{}', '{}'],
    ['$', 'value', '"\u00e9"', '"e\u0301"'],
  ])('finds at %s a %s', (path, kind, a, b) => {
    expect(differences(a, b)).toMatchObject([{ path, kind }]);
  });

  it('prints numbers as the raw tokens and leaves the absent side out', () => {
    const verdict = compare('{"a":10.00,"b":1e2,"c":12345678901234567890}', '{"a":9,"b":1}');
    expect(JSON.stringify(verdictDocument(verdict))).toBe(
      '{"verdict":"mismatch","differences":[{"path":"$.a","kind":"value","legacy":10.00,"extracted":9},{"path":"$.b","kind":"value","legacy":1e2,"extracted":1},' +
        '{"path":"$.c","kind":"missing","legacy":12345678901234567890}],"noise":[],"why":null}',
    );
  });

  it('compares unparsable bodies as bytes and says so', () => {
    expect(compare('{"x":NaN}', '{"x":NaN}')).toMatchObject({ kind: 'match', why: expect.stringContaining('unparsable') as unknown });
  });

  it('calls a document deeper than its limit unparsable and stays up', () => {
    const deep = '['.repeat(200_000) + ']'.repeat(200_000);
    expect(differences(deep, `${deep} `)).toMatchObject([{ kind: 'unparsable' }]);
  });

  it('ends on arrays nested to the limit although every level differs (time doubled per level would never end)', () => {
    const chain = (leaf: string): string => `[${leaf},`.repeat(499) + leaf + ']'.repeat(499);
    expect(compare(chain('1'), chain('2')).kind).toBe('mismatch');
  });
});

describe('arrays', () => {
  const list = JSON.stringify(range(0, 1000).map((id) => ({ id, name: `n${id}` })));
  const more = (at: number): string => JSON.stringify([...range(0, at), 5000, ...range(at, 1000)].map((id) => ({ id, name: `n${id}` })));

  it.each([0, 500, 1000])('finds one extra element at %i of a thousand', (at) => {
    expect(differences(list, more(at))).toEqual([{ path: `$[${at}]`, kind: 'extra', extracted: { id: 5000, name: 'n5000' } }]);
    expect(differences(more(at), list)).toEqual([{ path: `$[${at}]`, kind: 'missing', legacy: { id: 5000, name: 'n5000' } }]);
  });
  it('finds an insertion and a change far apart as two differences', () => {
    const changed = JSON.stringify([{ id: -1 }, ...range(0, 1000).map((id) => ({ id, name: id === 900 ? 'other' : `n${id}` }))]);
    expect(differences(list, changed)).toMatchObject([
      { path: '$[0]', kind: 'extra' },
      { path: '$[900].name', kind: 'value', legacy: 'n900', extracted: 'other' },
    ]);
  });
  it('falls back to comparing by index when the arrays have little in common', () => {
    const other = JSON.stringify(range(5000, 6001));
    expect(differences(JSON.stringify(range(0, 1000)), other)).toContainEqual({ path: '$[0]', kind: 'value', legacy: 0, extracted: 5000 });
  });
  it.each<[string, string, string, ParityRules, unknown]>([
    [
      'by key',
      '{"items":[{"id":1,"n":1},{"id":2,"n":2}]}',
      '{"items":[{"id":2,"n":2},{"id":1,"n":1}]}',
      { arrays: [{ at: '$.items', by: 'id' }] },
      { kind: 'match' },
    ],
    [
      'by key, an element changed',
      '[{"id":1,"n":1},{"id":2,"n":2}]',
      '[{"id":2,"n":3},{"id":1,"n":1}]',
      { arrays: [{ at: '$', by: 'id' }] },
      [{ path: '$[1].n', kind: 'value', legacy: 2, extracted: 3 }],
    ],
    [
      'by nested key, one gone',
      '[{"p":{"id":1}},{"p":{"id":2}}]',
      '[{"p":{"id":2}}]',
      { arrays: [{ at: '$', by: 'p.id' }] },
      [{ path: '$[0]', kind: 'missing', legacy: { p: { id: 1 } } }],
    ],
    ['as set', '{"tags":["a","b","a"]}', '{"tags":["b","a"]}', { arrays: [{ at: '$.tags', as: 'set' }] }, { kind: 'match' }],
    [
      'as multiset',
      '[1,1,2]',
      '[1,2,2]',
      { arrays: [{ at: '$', as: 'multiset' }] },
      [
        { path: '$[1]', kind: 'missing', legacy: 1 },
        { path: '$[2]', kind: 'extra', extracted: 2 },
      ],
    ],
    [
      'as set under a wildcard',
      '{"items":[{"tags":[1,2]},{"tags":[3,4]}]}',
      '{"items":[{"tags":[2,1]},{"tags":[4,3]}]}',
      { arrays: [{ at: '$.items[*].tags', as: 'set' }] },
      { kind: 'match' },
    ],
  ])('compares %s', (_name, a, b, rules, expected) => {
    expect(differences(a, b, rules)).toEqual(expected);
  });
});

describe('rules', () => {
  it('lets numbers differ within a tolerance, only there, bounds included', () => {
    const rules: ParityRules = {
      tolerance: [
        { at: '$.price', abs: 0.01 },
        { at: '$..share', rel: 0.1 },
      ],
    };
    expect(compare('{"price":9.99}', '{"price":10.00}', rules)).toEqual({ kind: 'match' });
    expect(compare('{"price":1.01}', '{"price":1.00}', rules)).toEqual({ kind: 'match' });
    expect(compare('{"a":[{"share":100}]}', '{"a":[{"share":90}]}', rules)).toEqual({ kind: 'match' });
    expect(differences('{"price":9.98,"other":9.99}', '{"price":10,"other":10.00}', rules)).toMatchObject([
      { path: '$.price' },
      { path: '$.other' },
    ]);
  });
  it('keeps what an ignore rule excuses visible, everything below its place', () => {
    const rules: ParityRules = {
      ignore: [{ at: '$.meta', because: 'clock' }, { at: '$.items[*].seen' }, { at: 'header:x-*', because: 'host' }, { at: 'status' }],
    };
    const verdict = compareObservations(
      answer('{"meta":{"at":1},"items":[{"seen":1,"id":1},{"seen":2,"id":2}]}', [['X-Served-By', 'a']]),
      answer('{"meta":{"at":2},"items":[{"id":2},{"seen":3,"id":1}]}', [['X-Served-By', 'b']], 201),
      compileRules({ ...rules, arrays: [{ at: '$.items', by: 'id' }] }, NOW),
    );
    expect(verdict.kind).toBe('noise');
    expect(verdictDocument(verdict).noise.map(({ path, rule }) => [path, rule])).toEqual([
      ['status', 'ignore status'],
      ['header:x-served-by', 'ignore header:x-*: host'],
      ['$.meta.at', 'ignore $.meta: clock'],
      ['$.items[0].seen', 'ignore $.items[*].seen'],
      ['$.items[1].seen', 'ignore $.items[*].seen'],
    ]);
  });
  it('aligns ordered arrays although their elements hold ignored fields', () => {
    const rows = (from: number, seen: number): string => JSON.stringify(range(from, 50).map((id) => ({ id, seen: seen + id })));
    const verdict = compare(rows(0, 0), rows(1, 100), { ignore: [{ at: '$[*].seen' }] });
    expect(verdict).toMatchObject({ kind: 'mismatch', differences: [{ path: '$[0]', kind: 'missing' }] });
    expect(verdictDocument(verdict).noise).toHaveLength(49);
  });
  it('stops applying a rule on the day of its end and reports it', () => {
    const rules: ParityRules = {
      ignore: [
        { at: '$.a', because: 'clock', until: '2026-06-01' },
        { at: '$.b', until: '2026-06-02' },
      ],
    };
    const compiled = compileRules(rules, NOW);
    expect(compiled.expired).toEqual([{ at: '$.a', because: 'clock', until: '2026-06-01' }]);
    expect(compiled.validUntilMs).toBe(Date.parse('2026-06-02'));
    expect(differences('{"a":1,"b":1}', '{"a":2,"b":2}', rules)).toMatchObject([{ path: '$.a' }]);
  });
  it('names every fault of bad rules', () => {
    expect(() =>
      compileRules(
        { ignore: [{ at: '$.a[?(@.b)]' }, { at: 'body', until: 'soon' }], arrays: [{ at: '$' }], tolerance: [{ at: '$.x', abs: -1 }] },
        NOW,
      ),
    ).toThrow(/ignore\[0\]\.at.*ignore\[1\]\.until.*ignore\[1\]\.at.*arrays\[0\].*tolerance\[0\]\.abs/);
  });
});

describe('other bodies', () => {
  const typed = (type: string, body: string | Uint8Array): Observation => answer(body, [['content-type', type]]);
  const rules = compileRules({}, NOW);
  it.each<[string, Observation, Observation, unknown]>([
    [
      'text',
      typed('text/plain', 'a'),
      typed('text/plain', 'b'),
      { differences: [{ path: '$', kind: 'value', legacy: 'a', extracted: 'b' }] },
    ],
    [
      'text in two charsets',
      typed('text/plain; charset=iso-8859-1', new Uint8Array([0xe9])),
      typed('text/plain; charset=iso-8859-1', new Uint8Array([0xe9])),
      { kind: 'match' },
    ],
    ['equal bytes', typed('image/png', new Uint8Array([0, 1])), typed('image/png', new Uint8Array([0, 1])), { kind: 'match' }],
    [
      'other bytes',
      typed('image/png', new Uint8Array([0, 1])),
      typed('image/png', new Uint8Array([0, 2])),
      { differences: [{ path: '$', kind: 'value' }] },
    ],
    [
      'another number of bytes',
      typed('image/png', new Uint8Array([0, 1])),
      typed('image/png', new Uint8Array([0])),
      { differences: [{ kind: 'length', legacy: 2, extracted: 1 }] },
    ],
    [
      'another class',
      typed('application/json', '{}'),
      typed('text/html', '<p>'),
      {
        differences: [
          { path: 'header:content-type', kind: 'header' },
          { path: '$', kind: 'type', legacy: 'json', extracted: 'html' },
        ],
      },
    ],
    ['an empty body', answer(''), answer('{"a":1}'), { differences: [{ path: '$', kind: 'extra', extracted: { a: 1 } }] }],
    ['no body', answer(null), answer(''), { kind: 'match' }],
    ['a broken answer', answer('{}'), { ...answer('{}'), complete: false, why: 'timeout' }, { kind: 'incomparable', why: 'timeout' }],
    ['equal digests', { ...answer(null), digest: 'x' }, { ...answer(null), digest: 'x' }, { kind: 'match' }],
    ['digests that differ', { ...answer(null), digest: 'x' }, { ...answer(null), digest: 'y' }, { kind: 'incomparable', why: 'too-large' }],
    [
      'digests that differ, and the status',
      { ...answer(null), digest: 'x' },
      { ...answer(null, undefined, 500), digest: 'y' },
      { differences: [{ path: 'status', kind: 'status', legacy: 200, extracted: 500 }] },
    ],
    [
      'an undecodable side',
      answer('{}'),
      { ...answer('{}x'), encodingFault: 'bad gzip' },
      { differences: [{ path: '$', kind: 'encoding', extracted: 'bad gzip' }] },
    ],
  ])('handles %s', (_name, a, b, expected) => {
    expect(compareObservations(a, b, rules)).toMatchObject(expected as object);
  });
});

describe('headers', () => {
  const rules = compileRules({}, NOW);
  const verdictOf = (a: [string, string][], b: [string, string][]): Verdict => compareObservations(answer('1', a), answer('1', b), rules);
  const day = 'Wed, 21 Oct 2026 07:28:00 GMT';
  it.each<[string, [string, string][], [string, string][]]>([
    [
      'the moment, the hop and the machine',
      [
        ['Date', 'x'],
        ['Via', '1'],
        ['Connection', 'X-Hop'],
        ['X-Hop', '1'],
        ['Server', 'a'],
        ['X-Request-Id', '1'],
        ['Content-Length', '1'],
      ],
      [],
    ],
    [
      'lists in another order',
      [
        ['Cache-Control', 'private, max-age=0'],
        ['Vary', 'Accept, Cookie'],
      ],
      [
        ['cache-control', 'Max-Age=0,private'],
        ['Vary', 'cookie'],
        ['Vary', 'accept'],
      ],
    ],
    ['own hosts in Location', [['Location', 'http://legacy:3000/orders/1?a=b']], [['Location', 'https://orders.local/orders/1?a=b']]],
    ['weak ETags', [['ETag', 'W/"1"']], [['ETag', 'W/"2"']]],
    ['charset of JSON', [['Content-Type', 'application/json; charset=UTF-8']], [['Content-Type', 'application/json']]],
    [
      'values of cookies',
      [
        ['Set-Cookie', `sid=1; Path=/; Expires=${day}; HttpOnly`],
        ['Set-Cookie', 'a=1'],
      ],
      [
        ['Set-Cookie', 'a=2'],
        ['Set-Cookie', `sid=2; httponly; path=/; expires=${day}`],
      ],
    ],
    [
      'expiry relative to each Date',
      [
        ['Date', 'Wed, 21 Oct 2026 07:28:00 GMT'],
        ['Expires', 'Wed, 21 Oct 2026 08:28:00 GMT'],
      ],
      [
        ['Date', 'Wed, 21 Oct 2026 07:30:00 GMT'],
        ['Expires', 'Wed, 21 Oct 2026 08:30:01 GMT'],
      ],
    ],
  ])('matches %s', (_name, a, b) => {
    expect(verdictOf(a, b)).toEqual({ kind: 'match' });
  });
  it.each<[string, string, [string, string][], [string, string][]]>([
    ['header:x-total', 'missing', [['X-Total', '1']], []],
    ['header:x-total', 'header', [['X-Total', '1']], [['X-Total', '2']]],
    ['header:cache-control', 'header', [['Cache-Control', 'private']], [['Cache-Control', 'public']]],
    ['header:location', 'header', [['Location', '/a']], [['Location', 'http://own/b']]],
    ['header:set-cookie', 'header', [['Set-Cookie', 'sid=1; HttpOnly']], [['Set-Cookie', 'sid=1']]],
    ['header:set-cookie', 'header', [['Set-Cookie', 'sid=; Max-Age=0']], [['Set-Cookie', 'sid=1']]],
    ['header:set-cookie', 'missing', [['Set-Cookie', 'sid=1']], []],
    ['header:etag', 'header', [['ETag', '"1"']], [['ETag', '"2"']]],
    ['header:content-type', 'header', [['Content-Type', 'text/plain']], [['Content-Type', 'text/html']]],
  ])('finds at %s a %s', (path, kind, a, b) => {
    expect(verdictOf(a, b)).toMatchObject({ differences: [{ path, kind }] });
  });
  it('lets a strong ETag that differs with the body say nothing twice', () => {
    expect(compareObservations(answer('{"a":1}', [['ETag', '"1"']]), answer('{"a":2}', [['ETag', '"2"']]), rules)).toMatchObject({
      differences: [{ path: '$.a' }],
    });
  });
  it('tells a redirect elsewhere from one at home when it knows its hosts', () => {
    const at = (host: string): Observation => ({ ...answer('x', [['Location', `http://${host}/x`]]), ownHosts: ['legacy', 'orders'] });
    expect(compareObservations(at('legacy'), at('orders'), rules)).toEqual({ kind: 'match' });
    expect(compareObservations(at('legacy'), at('evil'), rules).kind).toBe('mismatch');
  });
});

describe('properties', () => {
  const shuffled = (value: unknown): string =>
    Array.isArray(value)
      ? `[${value.map(shuffled).join()}]`
      : typeof value === 'object' && value !== null
        ? `{${Object.entries(value)
            .reverse()
            .map(([key, member]) => `${JSON.stringify(key)}:${shuffled(member)}`)
            .join()}}`
        : JSON.stringify(value);
  const mirrored = { missing: 'extra', extra: 'missing' } as Record<string, string>;

  it('an answer matches itself with its members in another order', () => {
    fc.assert(fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => compare(JSON.stringify(value), shuffled(value)).kind === 'match'));
  });
  it('the verdict does not depend on which side is which, and missing mirrors extra', () => {
    const value = fc.jsonValue({ maxDepth: 3 });
    fc.assert(
      fc.property(value, value, (a, b) => {
        const [there, back] = [compare(JSON.stringify(a), JSON.stringify(b)), compare(JSON.stringify(b), JSON.stringify(a))];
        expect(back.kind).toBe(there.kind);
        if (there.kind !== 'mismatch' || back.kind !== 'mismatch') return;
        const kinds = (verdict: typeof there): string[] => verdict.differences.map(({ kind }) => kind).sort();
        if (there.differences.every(({ path }) => !path.includes('[')))
          expect(kinds(back)).toEqual(there.differences.map(({ kind }) => mirrored[kind] ?? kind).sort());
      }),
    );
  });
  it('a changed number is found wherever it stands', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), fc.integer(), fc.integer({ min: 1 }), (value, a, by) => {
        const found = differences(JSON.stringify([{ value, a }]), JSON.stringify([{ a: a + by, value }]));
        expect(found).toEqual([{ path: '$[0].a', kind: 'value', legacy: a, extracted: a + by }]);
      }),
    );
  });
  it('never throws, whatever the bytes, types and rules', () => {
    const type = fc.constantFrom('application/json', 'text/html; charset=utf-16', 'text/plain; charset=nonsense', 'image/png', '', ';;=');
    const body = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.string().map((text) => utf8.encode(text)),
      fc.json().map((text) => utf8.encode(text)),
    );
    const headers = fc.array(
      fc.tuple(
        fc.constantFrom('set-cookie', 'location', 'cache-control', 'expires', 'etag', 'last-modified', 'connection', 'link', 'x'),
        fc.string(),
      ),
    );
    const rules = compileRules(
      { ignore: [{ at: '$..a..a' }], arrays: [{ at: '$..*', as: 'set' }], tolerance: [{ at: '$[*]', rel: 0.1 }] },
      NOW,
    );
    fc.assert(
      fc.property(body, body, type, type, headers, headers, (a, b, ta, tb, ha, hb) => {
        compareObservations(answer(a, [...ha, ['content-type', ta]]), answer(b, [...hb, ['content-type', tb]]), rules);
        expect(['match', 'noise']).toContain(
          compareObservations(answer(a, [...ha, ['content-type', ta]]), answer(a, [...ha, ['content-type', ta]]), rules).kind,
        );
      }),
      { numRuns: 500 },
    );
  });
});
