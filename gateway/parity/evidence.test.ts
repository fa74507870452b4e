import { randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import type { Difference, Observation } from '../core/parity/observation.ts';
import { createMemoryEvidenceStore } from './evidence.fake.ts';
import { createEvidence, type Evidence, type JudgedPair } from './evidence.ts';
import { createRedactor } from './redact.ts';

const observed = (body: string, headers: [string, string][] = [['Content-Type', 'application/json']]): Observation => ({
  status: 200,
  headers,
  body: Buffer.from(body),
  complete: true,
});

const match: JudgedPair = {
  context: 'order',
  route: '/',
  requestId: 'r',
  at: 0,
  verdict: { kind: 'match' },
  confirmed: false,
  primary: 'legacy',
  method: 'GET',
  target: '/',
  headers: [],
};

describe('evidence while the store is down', () => {
  it('drops with a count, tells once, and goes on when it is back', async () => {
    const store = createMemoryEvidenceStore();
    let down = true;
    const told: boolean[] = [];
    const evidence: Evidence = createEvidence({
      store: { ...store, add: (batch) => (down ? Promise.reject(new Error('down')) : store.add(batch)) },
      redact: () => [],
      redactKey: randomBytes(32),
      onStore: (failing) => told.push(failing),
      flushMs: 3_600_000,
    });
    for (let i = 0; i < 3; i++) {
      evidence.count('order', '/', 'requests');
      await evidence.flush();
    }
    expect(evidence.stats()).toEqual({ lost: 3, waiting: 0 });
    down = false;
    evidence.note(match);
    await evidence.flush();
    expect(told).toEqual([true, false]);
    expect(await evidence.parityReport('order')).toMatchObject({ requests: 0, match: 1 });
    await evidence.stop();
  });
  it('keeps its buffer bounded however many routes there are', async () => {
    const evidence = createEvidence({
      store: createMemoryEvidenceStore(),
      redact: () => [],
      redactKey: randomBytes(32),
      flushMs: 3_600_000,
    });
    for (let i = 0; i < 20_000; i++) evidence.count('order', `/r${i}`, 'requests');
    expect(evidence.stats()).toEqual({ lost: 15_000, waiting: 5_000 });
    for (let i = 0; i < 1_000; i++) evidence.note({ ...match, verdict: { kind: 'incomparable', why: `w${i}` } });
    expect(evidence.stats().waiting).toBe(5_100);
    await evidence.stop();
  });
});

describe('redaction', () => {
  const redactor = () =>
    createRedactor(
      ['header:authorization', 'header:cookie', 'cookie:sid', 'query:token', '$..password', '$.user.card'],
      new Uint8Array(32),
    );
  const mark = /\[redacted:[0-9a-f]{16}\]/;

  it('replaces named headers, parameters, cookies and members, and leaves the rest', () => {
    const one = redactor();
    expect(one.target('/a?x=1&token=hunter22&%74oken=hunter33')).toMatch(
      /^\/a\?x=1&token=\[redacted:\w{16}\]&%74oken=\[redacted:\w{16}\]$/,
    );
    expect(
      one.headers([
        ['Authorization', 'Bearer t0psecret'],
        ['X', '1'],
      ]),
    ).toEqual([
      ['Authorization', expect.stringMatching(mark) as unknown],
      ['X', '1'],
    ]);
    expect(
      one
        .headers([
          ['Set-Cookie', 'sid=abc; Path=/'],
          ['Set-Cookie', 'theme=dark'],
        ])
        .map(([, value]) => value),
    ).toEqual([expect.stringMatching(/^sid=\[redacted:\w{16}\]; Path=\/$/) as unknown, 'theme=dark']);
    expect(
      JSON.parse(one.answer(observed('{"user":{"card":4111111111111111,"name":"n"},"list":[{"password":{"a":1}}]}'), 10_000).body!),
    ).toEqual({
      user: { card: expect.stringMatching(mark) as unknown, name: 'n' },
      list: [{ password: expect.stringMatching(mark) as unknown }],
    });
  });
  it('keeps equal secrets equal and different ones different', () => {
    const [both, one] = redactor().differences<Difference>([
      { path: '$.a.password', kind: 'value', legacy: 'one', extracted: 'two' },
      { path: '$.b.password', kind: 'missing', legacy: 'one' },
    ]);
    expect(both?.legacy).toBe(one?.legacy);
    expect(both?.legacy).not.toBe(both?.extracted);
  });
  it('reaches into the values of differences above and below named places', () => {
    expect(
      redactor().differences([
        { path: '$.user', kind: 'missing', legacy: { card: 'secret-card', name: 'n' } },
        { path: '$.user.card.number', kind: 'extra', extracted: 'secret-card' },
        { path: '$', kind: 'unparsable', legacy: '{"password":"secret-pass', extracted: '{}' },
      ]),
    ).toEqual([
      { path: '$.user', kind: 'missing', legacy: { card: expect.stringMatching(mark) as unknown, name: 'n' } },
      { path: '$.user.card.number', kind: 'extra', extracted: expect.stringMatching(mark) as unknown },
      { path: '$', kind: 'unparsable', legacy: expect.stringMatching(mark) as unknown, extracted: expect.stringMatching(mark) as unknown },
    ]);
  });
  it('replaces tokens and known secrets echoed in text, and stores no broken JSON', () => {
    const one = redactor();
    one.headers([['Authorization', 'Bearer t0psecret']]);
    const page = one.answer(observed('<p>t0psecret eyJhbGciOi.eyJzdWIiOi.c2ln</p>', [['Content-Type', 'text/html']]), 10_000);
    expect(page.body).toMatch(/^<p>\[redacted:\w{16}\] \[redacted:\w{16}\]<\/p>$/);
    expect(one.answer(observed('{"password":"x'), 10_000).body).toBeNull();
  });
});
