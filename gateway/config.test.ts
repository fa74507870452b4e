import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { configJsonSchema, formatFault, type LoadOptions, loadConfig, loadParityRules, maskSecrets, unownedMethods } from './config.ts';

const load = (text: string, more: Partial<LoadOptions> = {}) =>
  loadConfig({ text, env: {}, now: new Date('2026-06-01T00:00:00Z'), ...more });

/** `LINE:COLUMN path` of every fault. */
const places = async (text: string, more: Partial<LoadOptions> = {}): Promise<readonly string[]> => {
  const result = await load(text, more);
  return result.ok ? [] : result.faults.map(({ line, column, path }) => `${line}:${column} ${path}`);
};

const messages = async (text: string, more: Partial<LoadOptions> = {}): Promise<readonly string[]> => {
  const result = await load(text, more);
  return result.ok ? [] : result.faults.map(formatFault);
};

const SHOP = `version: 1
legacy: { url: http://127.0.0.1:3000 }
store: postgres://banyan:secret@127.0.0.1/banyan
streams: {}
contexts:
  order:
    match:
      - { path: /api/orders/**, methods: [ GET, HEAD ] }
      - { path: /api/orders, methods: [ POST ], writes: { idempotency: key, resolve: { get: "/api/orders?ref={key}", applied: "$[0].id" } } }
    else: legacy
    extracted: { url: http://127.0.0.1:4001/, timeouts: { response: 2s } }
    stickyKey: [ header:X-User-Id, cookie:session ]
    stage: canary
    share: 12.5%
    events:
      - { when: POST /api/orders 2xx, type: order.placed.v1, aggregate: "$.response.body.id", data: { id: "$.response.body.id" } }
`;

describe('a valid file', () => {
  it('comes out complete, in ms, bytes and basis points, and frozen to the bottom', async () => {
    const result = await load(SHOP);
    if (!result.ok) throw new Error(result.faults.map(formatFault).join('\n'));
    const { config } = result;
    const order = config.contexts.order;
    expect(config).toMatchObject({
      listen: [{ host: '127.0.0.1', port: 8080, tls: null, http2: false }],
      drain: 30_000,
      client: { headerTimeout: 10_000, maxHeaderBytes: 65_536 },
      legacy: { urls: ['http://127.0.0.1:3000'], timeouts: { connect: 2_000, response: 60_000, idle: 300_000 } },
      streams: { facts: 'domain-events', endpoint: null, aggregate: true },
      flags: { maxStale: 5_000 },
      backlog: { maxBytes: 4 * 2 ** 30 },
    });
    expect(order).toMatchObject({
      extracted: { url: 'http://127.0.0.1:4001', timeouts: { response: 2_000 } },
      stickyKey: [
        { from: 'header', name: 'x-user-id' },
        { from: 'cookie', name: 'session' },
      ],
      share: 1_250,
      pin: 10_000,
      parity: { sample: 10_000, probe: 500 },
      ramp: { steps: [100, 500, 2_500, 5_000, 10_000] },
      events: [{ when: { method: 'POST', pathPattern: '/api/orders', statusClass: 2, status: null }, mode: 'ledger' }],
    });
    expect(order?.match[1]?.writes).toMatchObject({ settle: 90_000, deadline: 10_000, bodyLimit: 1_048_576, answerLimit: 262_144 });
    expect(Object.isFrozen(order?.match[1]?.writes)).toBe(true);
    expect(Object.isFrozen(config.admin.hosts)).toBe(true);
    expect(result.warnings).toEqual([]);
  });

  it('is not needed for a plain proxy, which reads no database from the environment', async () => {
    const result = await loadConfig({ overrides: { 'legacy.url': 'http://127.0.0.1:3000' }, env: { DATABASE_URL: 'postgres://x/y' } });
    expect(result).toMatchObject({ ok: true, config: { store: null, streams: null, contexts: {} } });
  });

  it('takes store, legacy database and seal from the environment where it is silent', async () => {
    const env = { DATABASE_URL: 'postgres://x/y', LEGACY_DATABASE_URL: 'postgres://l/m', BANYAN_SEAL_KEY: 'correct horse' };
    const result = await load('version: 1\nlegacy: { url: "http://127.0.0.1:3000" }', { env });
    expect(result).toMatchObject({
      ok: true,
      config: { store: 'postgres://x/y', adapter: { legacyDatabase: 'postgres://l/m' }, seal: { key: 'correct horse' } },
    });
  });

  it('coerces what variables expand to', async () => {
    const text =
      'version: "${V}"\nlegacy: { url: "http://127.0.0.1:${PORT}", connections: "${N}" }\ndebugHeaders: "${D:-true}"\nstore: "${NONE:-}"';
    const result = await load(text, { env: { V: '1', PORT: '3000', N: '7' } });
    expect(result).toMatchObject({
      ok: true,
      config: { legacy: { url: 'http://127.0.0.1:3000', connections: 7 }, debugHeaders: true, store: null },
    });
  });

  it('lets an override win over the file, and blames the command line for it', async () => {
    const result = await load(SHOP, { overrides: { 'legacy.url': 'http://127.0.0.1:1', listen: 'x' } });
    expect(result).toMatchObject({ ok: false, faults: [{ file: 'command line', line: 0, path: 'listen' }] });
  });

  it('treats a section whose lines are commented out as absent', async () => {
    expect(await places('version: 1\nlegacy: { url: "http://127.0.0.1:3000" }\ncontexts:\n  # none yet\nadmin:\n')).toEqual([]);
  });
});

describe('a bad file', () => {
  it('lists every fault at once, where it stands', async () => {
    const text = `version: 1
listn: 127.0.0.1:8080
drain: 30x
admin: { listen: 0.0.0.0:8081 }
legacy:
  url: ftp://monolith
  timeouts: { conect: 2s }
store: "\${NOPE}"
contexts:
  order:
    match:
      - { path: /api/orders/**, methods: [ GET, HEAD ] }
      - { path: api/orders, methods: [ POST, FOO ] }
      - { path: /api/orders/:id/cancel, methods: [ POST ], writes: { resolve: { get: "/x/{nope}", applied: "$.a" } } }
    stickyKey: body:x
    stage: canry
    events:
      - { when: POST /api/other 2xx, type: order.cancelled.v1, aggregate: "$.param.id", data: {} }
  inventory:
    match: [ { path: "/api/orders/:x/cancel", methods: [ POST ] } ]
    stage: shadow
`;
    expect(await places(text)).toEqual([
      '2:1 listn',
      '3:8 drain',
      '4:18 admin.listen',
      '6:8 legacy.url',
      '7:15 legacy.timeouts.conect',
      '8:8 store',
      '13:17 contexts.order.match[1].path',
      '13:46 contexts.order.match[1].methods[1]',
      '14:86 contexts.order.match[2].writes.resolve.get',
      '15:16 contexts.order.stickyKey',
      '16:12 contexts.order.stage',
      '17:5 contexts.order.events',
      '18:17 contexts.order.events[0].when',
      '18:75 contexts.order.events[0].aggregate',
      '20:22 contexts.inventory.match[0].path',
      '21:12 contexts.inventory.stage',
    ]);
    const lines = await messages(text);
    expect(lines[0]).toBe('banyan.yaml:2:1: listn: unknown key "listn"; did you mean "listen"?');
    expect(lines[1]).toBe('banyan.yaml:3:8: drain: "30x" does not fit; expected a duration such as 250ms, 5s, 2m, 1h or 7d');
    expect(lines[4]).toContain('did you mean "connect"?');
  });

  it.each([
    ['x: [1,2', '1:8 '],
    ['version: 1\nversion: 1', '2:1 '],
    ['version: 1\n---\nversion: 1', '2:1 '],
    ['a: *nope', '1:4 '],
    ['a: !foo 1', '1:4 '],
    ['\t- x', '1:1 '],
  ])('points at the syntax fault in %j', async (text, place) => expect(await places(text)).toContain(place));

  it.each([
    [
      'aliases that unfold without end',
      'a: &a [1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c]',
      'aliases repeat too much',
    ],
    ['an alias inside its own anchor', 'a: &a [*a, *a]', 'nested too deeply or too large'],
    ['endless nesting', '['.repeat(20_000), 'nested too deeply'],
    ['a list', '- 1', 'expected a mapping'],
    ['a scalar', '42', 'expected a mapping'],
    ['a context named like a property of every object', 'version: 1\ncontexts: { constructor: {} }', 'expected a context name'],
    ['a key named __proto__', 'version: 1\n__proto__: { a: 1 }', 'unknown key "__proto__"'],
  ])('refuses %s', async (_, text, message) => expect((await messages(text)).join('\n')).toContain(message));

  it.each([
    ['two listeners on one address', 'listen: [ 127.0.0.1:80, 127.0.0.1:80 ]', 'is taken by listen[0]'],
    [
      'one token name twice',
      'admin: { tokens: [ { name: a, role: viewer, token: x }, { name: a, role: admin, token: y } ] }',
      'names two tokens',
    ],
    ['url beside urls', 'legacy: { url: "http://a:1", urls: [ "http://b:1" ] }', 'either url or urls'],
    ['a filter in a JSONPath', 'redact: [ "$.a[?(@.b)]" ]', 'filters and scripts are not supported'],
    [
      'a bare number where a share belongs',
      'contexts: { a: { match: [ { path: /a } ], parity: { sample: 1 } } }',
      'a share from 0% to 100%',
    ],
    [
      'a day that does not exist',
      'contexts: { a: { match: [ { path: /a } ], parity: { ignore: [ { at: $.a, because: b, until: 2027-02-31 } ] } } }',
      'a day such as',
    ],
    [
      'a slice in a rule',
      'contexts: { a: { match: [ { path: /a } ], parity: { ignore: [ { at: "$.a[0:2]" } ] } } }',
      'a JSONPath of .name',
    ],
    [
      'a tolerance of nothing',
      'contexts: { a: { match: [ { path: /a } ], parity: { tolerance: [ { at: $.a } ] } } }',
      'neither abs nor rel',
    ],
    [
      'by and as together',
      'contexts: { a: { match: [ { path: /a } ], parity: { arrays: [ { at: $.a, by: id, as: set } ] } } }',
      'exactly one of by',
    ],
    [
      'an event without a store',
      'contexts: { a: { match: [ { path: /a } ], events: [ { when: POST /a, type: a.b.v1, aggregate: $.params.x, data: {} } ] } }',
      'events need a store',
    ],
    [
      'an event of a query',
      'contexts: { a: { match: [ { path: /a } ], events: [ { when: GET /a, type: a.b.v1, aggregate: $.params.x, data: {} } ] } }',
      'queries change nothing',
    ],
    [
      'a tentative event made of the answer',
      'contexts: { a: { match: [ { path: /a } ], events: [ { when: POST /a, type: a.b.v1, mode: tentative, aggregate: $.response.body.id, data: {} } ] } }',
      'published before there is an answer',
    ],
    [
      'a group that disagrees',
      'contexts: { a: { group: g, match: [ { path: /a } ] }, b: { group: g, stage: shadow, extracted: { url: "http://b:1" }, match: [ { path: /b } ] } }',
      'differs from a, which is in group g too',
    ],
    ['two ** in one path', 'contexts: { a: { match: [ { path: /a/**/b/** } ] } }', 'at most one **'],
    [
      'a mapping function name in YAML',
      'contexts: { a: { match: [ { path: /a } ], events: [ { when: POST /a, type: a.b.v1, aggregate: lookup, data: {} } ] } }',
      'does not fit',
    ],
  ])('refuses %s', async (_, text, message) => expect((await messages(`version: 1\n${text}`)).join('\n')).toContain(message));

  it('shows no secret in a fault', async () => {
    const lines = await messages(
      'version: 1\nstore: mysql://root:hunter2@db/x\nlegacy: { url: "ftp://me:hunter2@x", auth: hunter2 }\nseal: { key: hunter }',
    );
    expect(lines).toHaveLength(4);
    expect(lines.join('\n')).not.toContain('hunter');
  });

  it('never throws, whatever the text is', async () => {
    const token = fc.constantFrom(
      'version: 1\n',
      'contexts:',
      ' order:',
      '\n  ',
      '- ',
      '{',
      '}',
      '[',
      ']',
      ': ',
      '&a ',
      '*a ',
      '"',
      "'",
      '$',
      '${X}',
      '<<',
      '!t ',
      '\t',
      '|',
      '#',
      'match',
      '1',
      '0x',
      '\u0000',
      '---\n',
    );
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.array(token, { maxLength: 30 }).map((parts) => parts.join('')),
        ),
        async (text) => {
          const result = await load(text);
          if (!result.ok) expect(result.faults.length).toBeGreaterThan(0);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('never throws, whatever values stand at known keys', async () => {
    const keys = ['version', 'listen', 'admin', 'legacy', 'streams', 'store', 'contexts', 'redact', 'seal', 'dev'];
    const value = fc.oneof(
      fc.jsonValue({ maxDepth: 3 }),
      fc.dictionary(fc.constantFrom('match', 'url', 'urls', 'tokens', 'key', 'order', 'events', 'path'), fc.jsonValue({ maxDepth: 3 })),
    );
    await fc.assert(
      fc.asyncProperty(fc.dictionary(fc.constantFrom(...keys), value), async (document) => {
        const result = await load(JSON.stringify(document));
        if (!result.ok) for (const fault of result.faults) expect(fault.line).toBeGreaterThan(0);
      }),
      { numRuns: 300 },
    );
  });
});

it('warns of methods under an owned path that no context owns, until else: decides', async () => {
  const bare = SHOP.replace('    else: legacy\n', '');
  const result = await load(bare);
  if (!result.ok) throw new Error('should be valid');
  expect(result.warnings.map(({ line, path }) => `${line} ${path}`)).toEqual([
    '8 contexts.order.match[0].path',
    '9 contexts.order.match[1].path',
  ]);
  expect(unownedMethods(result.config, 'order')).toEqual([
    { path: '/api/orders/**', methods: ['POST', 'PUT', 'PATCH', 'DELETE'] },
    { path: '/api/orders', methods: ['PUT', 'PATCH', 'DELETE'] },
  ]);
});

it('masks every secret of a configuration that is shown', async () => {
  const result = await load(
    `${SHOP}admin: { tokens: [ { name: ci, role: viewer, token: hunter2 } ] }\nseal: { key: hunter2hunter2 }`.replace(
      '3000 }',
      '3000, auth: "authorization: Bearer hunter2" }',
    ),
  );
  if (!result.ok) throw new Error(result.faults.map(formatFault).join('\n'));
  const shown = JSON.stringify(maskSecrets(result.config));
  expect(shown).not.toMatch(/hunter2|secret@/);
  expect(shown).toContain('postgres://banyan:***@127.0.0.1/banyan');
});

it('describes itself as a JSON Schema with the defaults that one writes', () => {
  const schema = configJsonSchema() as { $schema: string; required: string[]; properties: Record<string, { default?: unknown }> };
  expect(schema.$schema).toBe('http://json-schema.org/draft-07/schema#');
  expect(schema.required).toEqual(['version']);
  expect(schema.properties.drain).toMatchObject({ default: '30s' });
  expect(JSON.stringify(schema)).not.toContain('{}]');
});

it('reads parity rules from a file of their own', () => {
  const good = loadParityRules({ file: 'rules.yaml', text: 'ignore: [ { at: $.generatedAt, because: clock } ]' });
  expect(good).toMatchObject({ ok: true, rules: { ignore: [{ at: '$.generatedAt', until: null }], sample: 10_000 } });
  const bad = loadParityRules({ file: 'rules.yaml', text: 'ignored: []\ntolerance: [ { at: $.x, abs: much } ]' });
  expect(bad).toMatchObject({
    ok: false,
    faults: [
      { line: 1, column: 1 },
      { line: 2, column: 30 },
    ],
  });
});
