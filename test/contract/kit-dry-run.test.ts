import { once } from 'node:events';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dryRunDb, dryRunRoutes, forbidInDryRun, guardHttp, isDryRun } from '@banyan/kit/dry-run.ts';
import { answerProblem } from '@banyan/kit/http.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import express from 'express';
import type { Knex } from 'knex';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';
import { openStore } from './kit-fixtures.ts';

let database: FreshDatabase;
let db: Knex;
let outside: Server;
let asked = 0;
let unguard: () => void;
const servers: Server[] = [];

/** A service with every way to have an effect that the kit knows of. */
const serve = async (declared: boolean): Promise<string> => {
  const own = dryRunDb(db);
  const elsewhere = `http://127.0.0.1:${(outside.address() as AddressInfo).port}/mail`;
  const app = express();
  app.use(dryRunRoutes(db, declared ? { ids: 'transient' } : undefined));
  app.use(express.json());
  app.post('/things', async (req, res) => {
    const { name, also } = req.body as { name: string; also?: string };
    const id = await own.transaction(async (trx) => {
      const [made] = await trx('thing').insert({ name }).returning<{ id: number }[]>('id');
      return made!.id;
    });
    await own('thing')
      .where({ id })
      .update({ name: `${name}!` });
    await own.raw('insert into log (text) values (?)', [name]);
    await own.withSchema('public').from('log').insert({ text: 'again' });
    if (also === 'fail') throw new Error('after the writes');
    if (also === 'fetch') await fetch(elsewhere, { method: 'POST' });
    if (also === 'http')
      await new Promise((resolve, reject) => {
        const out = request(elsewhere, { method: 'POST' }, (answer) => answer.resume().on('end', resolve));
        out.on('error', reject);
        out.end();
      });
    if (also === 'mail') forbidInDryRun('send mail');
    const [seen] = await own('thing').where({ id }).select('name');
    res.status(201).json({ ...seen, dry: isDryRun() });
  });
  app.use(answerProblem(() => undefined));
  const server = app.listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
};
const contents = async (): Promise<unknown> => {
  const { rows } = await db.raw<{ rows: unknown[] }>('select (select count(*) from thing) as things, (select count(*) from log) as lines');
  return rows[0];
};
const post = async (
  base: string,
  body: object,
  dry = true,
): Promise<{ status: number; marked: string | null; body: Record<string, unknown> }> => {
  const answer = await fetch(`${base}/things`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(dry ? { 'banyan-dry-run': '1' } : {}) },
    body: JSON.stringify(body),
  });
  return { status: answer.status, marked: answer.headers.get('banyan-dry-run'), body: (await answer.json()) as Record<string, unknown> };
};

beforeAll(async () => {
  database = await freshDatabase('empty');
  db = openStore(database.url);
  await db.raw('create table thing (id serial primary key, name text unique not null); create table log (text text not null)');
  outside = createServer((req, res) => {
    asked++;
    req.resume().on('end', () => res.end());
  }).listen(0, '127.0.0.1');
  await once(outside, 'listening');
  unguard = guardHttp();
});
afterAll(async () => {
  unguard();
  for (const server of [...servers, outside]) {
    server.closeAllConnections();
    server.close();
  }
  await db.destroy();
  await database.drop();
});

describe('a service that declares dry runs', () => {
  it('says so, carries a command out, answers, and nothing of it is there', async () => {
    const base = await serve(true);
    expect(await (await fetch(`${base}/_banyan/dry-run`)).json()).toEqual({ dryRun: true, ids: 'transient' });
    const before = await contents();
    expect(await post(base, { name: 'a' })).toEqual({ status: 201, marked: '1', body: { name: 'a!', dry: true } });
    // the row of the first would be in the way of the second
    expect(await post(base, { name: 'a' })).toMatchObject({ status: 201 });
    await until(
      async () =>
        (await db.raw(`select from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'`)).rowCount ===
        0,
      { describe: 'no transaction left open' },
    );
    expect(await contents()).toEqual(before);
  });
  it('asks nobody meanwhile, and has no effect when it fails', async () => {
    const base = await serve(true);
    const before = await contents();
    for (const [also, status] of [
      ['fail', 500],
      ['fetch', 409],
      ['http', 409],
      ['mail', 409],
    ] as const)
      expect(await post(base, { name: 'b', also })).toMatchObject({ status, marked: '1' });
    expect(asked).toBe(0);
    expect(await contents()).toEqual(before);
  });
  it('does what others ask in earnest at the same time', async () => {
    const base = await serve(true);
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, i) => post(base, { name: `c-${i}`, ...(i % 20 === 1 ? { also: 'fetch' } : {}) }, i % 2 === 0)),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 60 }, () => 201));
    expect(answers.map(({ body }) => body.dry)).toEqual(Array.from({ length: 60 }, (_, i) => i % 2 === 0));
    const names = (await db('thing').orderBy('name').select('name')).map(({ name }: { name: string }) => name);
    expect(names).toEqual(
      Array.from({ length: 60 }, (_, i) => `c-${i}!`)
        .filter((_, i) => i % 2 === 1)
        .sort(),
    );
    expect(asked).toBe(3);
  });
  it('does not wait long for a row that somebody holds', async () => {
    const base = await serve(true);
    await db('thing').insert({ name: 'held' });
    const holder = await db.transaction();
    await holder.raw(`select 1 from thing where name = 'held' for update`);
    await holder('thing').insert({ name: 'd' });
    const answer = await post(base, { name: 'd' });
    expect(answer.status).toBe(500);
    await holder.rollback();
  });
});

describe('a service that does not', () => {
  it('refuses them before its routes see them', async () => {
    const base = await serve(false);
    expect((await fetch(`${base}/_banyan/dry-run`)).status).toBe(404);
    const before = await contents();
    expect(await post(base, { name: 'e' })).toMatchObject({ status: 409, body: { code: 'not-configured' } });
    expect(await contents()).toEqual(before);
    expect(await post(base, { name: 'e' }, false)).toMatchObject({ status: 201, marked: null });
  });
});
