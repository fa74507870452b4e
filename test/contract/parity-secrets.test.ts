import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { createRandom } from '../../bench/random.ts';
import { compareObservations } from '../../gateway/core/parity/compare.ts';
import type { Observation } from '../../gateway/core/parity/observation.ts';
import { compileRules } from '../../gateway/core/parity/rules.ts';
import { up } from '../../gateway/migrations/020-parity.ts';
import { up as upNoise } from '../../gateway/migrations/040-parity-noise.ts';
import { up as upTemplates } from '../../gateway/migrations/051-parity-templates.ts';
import { up as upHours } from '../../gateway/migrations/052-parity-hours.ts';
import { up as upLatency } from '../../gateway/migrations/053-parity-latency.ts';
import { decodePair } from '../../gateway/parity/decode.ts';
import { createEvidence } from '../../gateway/parity/evidence.ts';
import { createEvidenceStore } from '../../gateway/parity/evidence-store.ts';
import { renderHtml, renderJunit } from '../../gateway/parity/replay/render.ts';
import { replayDocument, type StoredPair, storedPair } from '../../gateway/parity/replay/summary.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';

/** The default of `redact:` in the configuration. */
const REDACT = ['header:authorization', 'header:cookie', 'header:set-cookie', 'query:token', '$..password', '$..card'];
const PAIRS = 100;

const random = createRandom(28);
const secrets: string[] = [];
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
/** A new secret; all of them are searched for at the end. */
const secret = (length = 14): string => {
  const text = Array.from({ length }, () => LETTERS[Math.floor(random() * LETTERS.length)]).join('');
  secrets.push(text);
  return text;
};
const jwt = (): string => {
  const token = `eyJhbGciOiJIUzI1NiJ9.eyJ${secret(20)}.${secret(30)}`;
  secrets.push(token);
  return token;
};

const multipart = (fields: Readonly<Record<string, string>>): string =>
  `${Object.entries(fields)
    .map(([name, value]) => `--xx\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`)
    .join('')}--xx--\r\n`;

/** Bodies that hold secrets, one kind after the other; `echo` stands in free text. */
const bodies: ((password: string, card: string, echo: string) => readonly [type: string, body: string])[] = [
  (password, card, echo) => [
    'application/json',
    JSON.stringify({ user: { password, deep: [{ card }] }, echo: `you said ${echo}`, n: random() }),
  ],
  (password, card, echo) => [
    'application/x-ndjson',
    `{"password":"${password}"}\n{"a":[{"card":"${card}"}],"echo":"${echo}","n":${random()}}\n`,
  ],
  (password, card, echo) => ['application/xml', `<u n="${random()}"><password>${password}</password><c card="${card}"/><e>${echo}</e></u>`],
  (password, card, echo) => [
    'text/html',
    `<form><input type="password" name="pw" value="${password}"><input name="card" value='${card}'></form><p>${echo} ${random()}</p>`,
  ],
  (password, card, echo) => ['application/x-www-form-urlencoded', `password=${password}&card=${card}&x=${echo}&n=${random()}`],
  (password, card, echo) => ['multipart/form-data; boundary=xx', multipart({ password, card, echo, n: String(random()) })],
  (_password, _card, echo) => ['text/plain', `${'lorem ipsum '.repeat(300)}${random()} ${echo} ${jwt()}`],
  (password, card) => ['application/json', `{"password":"${password}","card":"${card}", broken ${random()}`],
];

let database: FreshDatabase;
let db: Knex;
beforeAll(async () => {
  database = await freshDatabase('empty');
  db = knex({ client: 'pg', connection: database.url, pool: { min: 0, max: 2 } });
  await db.raw('create schema banyan');
  await up(db);
  await upNoise(db);
  await upTemplates(db);
  await upHours(db);
  await upLatency(db);
});
afterAll(async () => {
  await db.destroy();
  await database.drop();
});

it('writes none of 1,000 secrets to the database, to batches, stores or reports, and still tells equal ones from different ones', async () => {
  const rules = compileRules({}, 0);
  const written: string[] = [];
  const store = createEvidenceStore(db);
  const evidence = createEvidence({
    store: {
      ...store,
      add: (batch) => {
        written.push(JSON.stringify(batch));
        return store.add(batch);
      },
    },
    redact: () => REDACT,
    redactKey: new Uint8Array(32).fill(7),
    flushMs: 3_600_000,
  });
  const kept: StoredPair[] = [];
  for (let i = 0; i < PAIRS; i++) {
    const [bearer, session, query, password] = [secret(), secret(), secret(), secret()];
    const headers: [string, string][] = [
      ['Authorization', `Bearer ${bearer}`],
      ['Cookie', `session=${session}; theme=dark`],
      ['Referer', `https://shop.example/?token=${query}`],
    ];
    const body = bodies[i % bodies.length]!;
    const target = `/api/orders/${i}?token=${query}&jwt=${jwt()}`;
    const sides = [0, 1].map((): Observation => {
      const [type, text] = body(password, secret(), bearer);
      const gzipped = i % 3 === 0;
      return {
        status: 200,
        headers: [
          ['Content-Type', type],
          ['Set-Cookie', `session=${secret()}; Path=/; HttpOnly`],
          ['Location', `/next?token=${query}`],
          ['X-Echo', session],
          ...(gzipped ? [['Content-Encoding', 'gzip'] as const] : []),
        ],
        body: gzipped ? gzipSync(text) : Buffer.from(text),
        complete: true,
      };
    });
    const [legacy, extracted] = await decodePair(sides[0]!, sides[1]!, 1024 * 1024);
    const verdict = compareObservations(legacy, extracted, rules);
    expect(verdict.kind).toBe('mismatch');
    const about = { context: `c${i}`, route: '/api/orders/:id', requestId: `r${i}`, method: 'GET', target, headers };
    evidence.note({ ...about, at: 0, verdict, confirmed: true, primary: 'legacy', answers: { legacy, extracted } });
    await evidence.flush();
    const request = { index: i, method: 'POST', target, headers, body: Buffer.from(JSON.stringify({ password, card: secret() })) };
    const answered = (observation: Observation) => ({ observation, ms: 1 });
    const replayed = { request, verdict, confirmed: true, legacy: answered(legacy), extracted: answered(extracted) };
    kept.push(storedPair(replayed, [legacy, extracted], REDACT, new Uint8Array(32).fill(7)));
  }
  await evidence.stop();
  expect(evidence.stats().lost).toBe(0);
  expect(secrets.length).toBeGreaterThanOrEqual(1_000);

  const document = replayDocument(kept, {
    legacy: 'http://legacy',
    extracted: 'http://extracted',
    skipped: { commands: 0, unreadable: 0 },
    interrupted: false,
  });
  written.push(JSON.stringify(kept), JSON.stringify(document), renderHtml(document), renderJunit(document));
  for (const table of ['parity_pair', 'parity_field', 'parity_count', 'parity_probe']) {
    const { rows } = await db.raw<{ rows: { text: string }[] }>(`select t::text as text from banyan.${table} t`);
    written.push(...rows.map(({ text }) => text));
  }
  const all = written.join('\n');
  expect(all.length).toBeGreaterThan(1_000_000);
  expect(secrets.filter((text) => all.includes(text))).toEqual([]);

  const json = kept[0]!;
  const [ours, theirs] = [json.legacy, json.extracted].map(
    ({ body }) => JSON.parse(body!) as { user: { password: string; deep: { card: string }[] } },
  );
  expect(ours!.user.password).toBe(theirs!.user.password);
  expect(ours!.user.deep[0]!.card).not.toBe(theirs!.user.deep[0]!.card);
});
