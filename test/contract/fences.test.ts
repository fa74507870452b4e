import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AuditRow, ContextView } from '@banyan/contracts/admin-api.ts';
import { createGateway, type Gateway } from '@banyan/gateway/compose.ts';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { pino } from 'pino';
import { type Config, loadConfig } from '../../gateway/config.ts';
import { bucketOf } from '../../gateway/core/bucket.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { get, type Listening, listenOn } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

/** What a move and a reload may not do, asked of a whole gateway by its admin API. */

let database: FreshDatabase;
let folder: string;
let db: Knex;
let sides: Listening[];
let gateway: Gateway;
let urls: { gateway: string; admin: string };

type Options = { readonly otherwise?: string; readonly drop?: string };
const yaml = ({ otherwise = '', drop }: Options = {}): string => {
  const context = (name: string, more: string): string =>
    name === drop
      ? ''
      : `  ${name}: { extracted: { url: "${sides[1]!.url}" }, stickyKey: [ "header:x-user-id" ], parity: { sample: 0% }, ${more} }\n`;
  return `
version: 1
listen: 127.0.0.1:0
admin: { listen: 127.0.0.1:0 }
legacy: { url: "${sides[0]!.url}" }
store: ${database.url}
log: { level: silent }
debugHeaders: true
contexts:
${context('basket', 'group: till, else: legacy, match: [ { path: "/basket/**", methods: [ GET, POST ] } ]')}${context(
  'payment',
  'group: till, else: legacy, match: [ { path: "/payment/**", methods: [ GET, POST ] } ]',
)}${context(
  'order',
  `${otherwise}match: [ { path: "/orders/:id", methods: [ GET, HEAD, POST ] }, { path: "/orders/:id/history", methods: [ GET, HEAD ], maxStage: shadow } ]`,
)}${context('note', 'else: legacy, match: [ { path: "/notes/:id", methods: [ GET ] }, { path: "/notes", methods: [ POST ], maxStage: canary } ]')}`;
};

const FILE = (): string => join(folder, 'banyan.yaml');

beforeAll(async () => {
  database = await freshDatabase('store');
  db = knex({ client: 'pg', connection: database.url, pool: { min: 0, max: 1 } });
  folder = await mkdtemp(join(tmpdir(), 'banyan-fences-'));
  sides = await Promise.all(
    ['legacy', 'extracted'].map((name) => listenOn((req, res) => void req.resume().on('end', () => res.setHeader('x-side', name).end()))),
  );
  await writeFile(FILE(), yaml());
  const loaded = await loadConfig({ env: {}, file: FILE() });
  if (!loaded.ok) throw new Error(loaded.faults.map((fault) => `${fault.path}: ${fault.message}`).join('\n'));
  // the file is not watched here: each reload is asked for
  gateway = await createGateway({ config: loaded.config, configFile: FILE(), version: '0', log: pino({ level: 'silent' }) });
  urls = await gateway.start();
}, 180_000);
afterAll(async () => {
  await gateway.stop();
  await Promise.all(sides.map((side) => side.stop()));
  await db.destroy();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
}, 180_000);

type Answer<T> = { readonly status: number; readonly body: T };
const api = async <T = { detail: string; code: string }>(path: string, method = 'GET', body?: object): Promise<Answer<T>> => {
  const response = await fetch(`${urls.admin}/api/v1${path}`, {
    method,
    headers: { 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as T };
};
const contextNow = async (name: string): Promise<ContextView> => (await api<ContextView>(`/contexts/${name}`)).body;
const move = <T = { detail: string; code: string }>(name: string, stage: string, more: object = {}): Promise<Answer<T>> =>
  api<T>(`/contexts/${name}/stage`, 'PUT', { stage, reason: 'test', ...more });
/** Where a flip would have brought it: what a flip itself does is tested elsewhere, and needs an adapter. */
const standsAt = async (name: string, stage: 'cutover' | 'legacy'): Promise<void> => {
  const owner = stage === 'cutover' ? 'extracted' : 'legacy';
  await db('banyan.context')
    .where({ name })
    .update({
      stage,
      owner,
      canary_share_bp: stage === 'cutover' ? 10_000 : 0,
      version: db.raw('version + 1'),
      epoch: db.raw('epoch + 1'),
    });
  await until(async () => (await contextNow(name)).stage === stage, { describe: `${name} to be seen at ${stage}` });
};
const reload = async (options: Options): Promise<Answer<{ ok?: boolean; detail?: string }>> => {
  await writeFile(FILE(), yaml(options));
  return api('/config/reload', 'POST', {});
};
const sideOf = async (path: string, id: string, method = 'GET'): Promise<string> =>
  String((await get(`${urls.gateway}${path}`, { 'x-user-id': id }, method)).headers['x-side']);

describe('a group', () => {
  it('moves as one: stage, share, clients, kill and revival, each with a row in the audit', async () => {
    await move('basket', 'canary', { percent: 50, force: true });
    expect(await contextNow('payment')).toMatchObject({ stage: 'canary', percent: 50 });
    for (let n = 0; n < 20; n++) {
      const expected = bucketOf('till', `u${n}`) < 5_000 ? 'extracted' : 'legacy';
      expect([await sideOf('/basket/1', `u${n}`), await sideOf('/payment/1', `u${n}`)]).toEqual([expected, expected]);
    }
    const both = async () => Promise.all(['basket', 'payment'].map(contextNow));
    await move('payment', 'canary', { percent: 12.5 });
    expect(await both()).toMatchObject([{ percent: 12.5 }, { percent: 12.5 }]);
    const { body } = await api<{ items: AuditRow[] }>('/audit?limit=50');
    const moved = body.items
      .filter(({ after }) => (after as { canaryShareBp?: number } | null)?.canaryShareBp === 1_250)
      .map(({ context }) => context);
    expect(moved.sort()).toEqual(['basket', 'payment']);
    await api('/contexts/basket/kill', 'POST', { reason: 'test' });
    for (let n = 0; n < 20; n++) expect(await sideOf('/payment/1', `u${n}`)).toBe('legacy');
    await api('/contexts/payment/revive', 'POST', { reason: 'test' });
    expect((await both()).map(({ killed }) => killed)).toEqual([false, false]);
  });

  it('cannot be joined by a reload while it stands elsewhere', async () => {
    await move('basket', 'shadow');
    await writeFile(FILE(), yaml().replace('  note: {', '  note: { group: till,'));
    const { status, body } = await api('/config/reload', 'POST', {});
    expect([status, body.detail]).toEqual([409, expect.stringContaining('different stages: group till')]);
  });
});

describe('a cutover', () => {
  it('is refused while nobody says who answers other methods, naming them; `else` answers them then', async () => {
    await move('order', 'canary', { percent: 100, force: true });
    const refused = await move('order', 'cutover');
    expect([refused.status, refused.body.code]).toEqual([409, 'conflict']);
    expect(refused.body.detail).toContain('nobody owns PUT, PATCH, DELETE /orders/:id of order');
    expect(refused.body.detail).toContain('POST, PUT, PATCH, DELETE /orders/:id/history');
    expect(await sideOf('/orders/1', 'u1', 'DELETE')).toBe('legacy');

    expect((await reload({ otherwise: 'else: refuse, ' })).body).toMatchObject({ ok: true });
    await standsAt('order', 'cutover');
    expect((await get(`${urls.gateway}/orders/1`, {}, 'DELETE')).status).toBe(405);
    expect((await reload({ otherwise: 'else: legacy, ' })).body).toMatchObject({ ok: true });
    expect(await sideOf('/orders/1', 'u1', 'DELETE')).toBe('legacy');
    expect(await sideOf('/orders/1', 'u1', 'POST')).toBe('extracted');
  }, 180_000);

  it('leaves a query behind whose route is capped, and is refused for capped commands', async () => {
    expect(await contextNow('order')).toMatchObject({ stage: 'cutover' });
    expect([await sideOf('/orders/1', 'u1'), await sideOf('/orders/1/history', 'u1')]).toEqual(['extracted', 'legacy']);
    await move('note', 'canary', { percent: 100, force: true });
    const { status, body } = await move('note', 'cutover');
    expect([status, body.detail]).toEqual([409, expect.stringContaining('the commands of /notes stop at canary (maxStage)')]);
  });
});

describe('a reload', () => {
  it('cannot take a context away that is in use, and changes nothing by trying', async () => {
    const refused = await reload({ otherwise: 'else: legacy, ', drop: 'order' });
    expect([refused.status, refused.body.detail]).toEqual([409, expect.stringContaining('order (cutover): GET HEAD POST /orders/:id')]);
    expect(await sideOf('/orders/1', 'u1')).toBe('extracted');
    // a start cannot be refused so, because gateways with other files may share the store: it says so aloud
    const loaded = await loadConfig({ env: {}, text: yaml({ drop: 'order' }) });
    const lines: string[] = [];
    const other = await createGateway({
      config: { ...(loaded as { config: Config }).config, log: { ...(loaded as { config: Config }).config.log, level: 'error' } },
      version: '0',
      log: pino({ level: 'error' }, { write: (line) => void lines.push(line) }),
    });
    await other.start();
    await other.stop();
    expect(lines.join('')).toContain('"contexts":["order (cutover)"]');
    // from legacy it may go; the store keeps what it knows
    await standsAt('order', 'legacy');
    expect((await reload({ otherwise: 'else: legacy, ', drop: 'order' })).body).toMatchObject({ ok: true });
    expect(await sideOf('/orders/1', 'u1')).toBe('legacy');
    expect((await reload({ otherwise: 'else: legacy, ' })).body).toMatchObject({ ok: true });
    expect(await contextNow('order')).toMatchObject({ stage: 'legacy', epoch: 3 });
  }, 180_000);
});

describe('two people who edit the same version at once', () => {
  it('are told apart: one move, one 409 that says so', async () => {
    const { version } = await contextNow('order');
    const answers = await Promise.all([
      move<ContextView & { code: string }>('order', 'shadow', { ifVersion: version }),
      move<ContextView & { code: string }>('order', 'shadow', { ifVersion: version }),
    ]);
    const [won, lost] = answers.sort((a, b) => a.status - b.status);
    expect([won!.status, won!.body.version]).toEqual([200, version + 1]);
    expect([lost!.status, lost!.body.code]).toEqual([409, expect.stringMatching(/^(stale-version|conflict)$/)]);
    expect(await contextNow('order')).toMatchObject({ version: version + 1 });
  });
});

describe('the audit', () => {
  it('shows a row that somebody edited, removed or put in by SQL, and which', async () => {
    const verify = async () => (await api<{ ok: boolean; faults: { id: number; fault: string }[] }>('/audit/verify')).body;
    expect(await verify()).toMatchObject({ ok: true, faults: [] });
    // the table refuses both, so that only somebody who takes that away can
    await expect(db('banyan.audit').where({ id: 1 }).update({ reason: 'forged' })).rejects.toThrow(/append/);
    await expect(db('banyan.audit').where({ id: 1 }).delete()).rejects.toThrow(/append/);
    const [row] = (await db('banyan.audit').orderBy('id').offset(2).limit(1)) as { id: string; reason: string }[];
    const forge = async (work: () => Promise<unknown>): Promise<void> => {
      await db.raw('alter table banyan.audit disable trigger user');
      await work();
      await db.raw('alter table banyan.audit enable trigger user');
    };
    await forge(() => db('banyan.audit').where({ id: row!.id }).update({ reason: 'forged' }));
    expect(await verify()).toEqual(
      expect.objectContaining({ ok: false, faults: [{ id: Number(row!.id), fault: expect.stringContaining('hash') }] }),
    );
    await forge(() => db('banyan.audit').where({ id: row!.id }).update({ reason: row!.reason }));
    expect(await verify()).toMatchObject({ ok: true });
    await forge(() => db('banyan.audit').where({ id: row!.id }).delete());
    expect((await verify()).ok).toBe(false);
  });
});
