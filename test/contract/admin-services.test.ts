import { pageOf, sagaSchema } from '@banyan/contracts/admin-api.ts';
import { type Service, startService } from '@banyan/kit/service.ts';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import type { Knex } from 'knex';
import { notificationService } from '../../extracted-services/notification/compose.ts';
import { sagaService } from '../../extracted-services/saga/compose.ts';
import { begin } from '../../extracted-services/saga/store.ts';
import { type AdminSystem, adminSystem, configOf } from '../harness/admin.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { run } from '../harness/processes.ts';
import { until } from '../harness/wait.ts';
import { configFor, fact, openStore, publish, silent, startStream } from './kit-fixtures.ts';

jest.setTimeout(240_000);

const TOKEN = 'token-of-the-services';
const ADMIN = 'tell-nobody';

let database: FreshDatabase;
let db: Knex;
let stream: Awaited<ReturnType<typeof startStream>>;
let notification: Service;
let saga: Service;
let system: AdminSystem;
let url: string;

type Item = { readonly id: string; readonly key: string | null; readonly action: string };
type Body = {
  readonly items: readonly Item[];
  readonly next: string | null;
  readonly missing: readonly { service: string }[];
  readonly state: string;
  readonly envelope: string;
  readonly timeline: readonly object[];
};
const api = async (path: string, change?: object): Promise<{ status: number; body: Body }> => {
  const answer = await fetch(`${url}/api/v1/${path}`, {
    headers: { authorization: `Bearer ${ADMIN}`, 'content-type': 'application/json' },
    ...(change ? { method: 'POST', body: JSON.stringify(change) } : {}),
  });
  return { status: answer.status, body: (await answer.json()) as Body };
};
const banyan = async (...args: string[]): Promise<{ code: number | null; out: string; err: string }> => {
  const child = run('gateway/cli/main.ts', [...args, '--admin', url], { env: { BANYAN_ADMIN_TOKEN: ADMIN } });
  const { code } = await child.exited;
  return { code, out: child.stdout.join('\n'), err: child.stderr.join('\n') };
};
const audited = async (action: string): Promise<readonly Item[]> => (await api('audit')).body.items.filter((row) => row.action === action);
const idsOf = ({ items }: Body): string[] => items.map(({ id }) => id);

const cancelled = (id: number, sequence = 1) => fact('order.cancelled.v1', String(id), { id }, { origin: 'extracted', sequence });

beforeAll(async () => {
  database = await freshDatabase('store');
  db = openStore(database.url);
  stream = await startStream();
  const config = configFor(database.url, stream, { BANYAN_SERVICE_TOKEN: TOKEN });
  notification = await startService(notificationService, config, { log: silent });
  // nobody is there who could do a step
  saga = await startService(sagaService({}), config, { log: silent });
  const loaded = await configOf(`\n  tokens: [ { name: otto, role: operator, token: ${ADMIN} } ]`);
  // the contexts' own services are away
  const contexts = Object.fromEntries(
    Object.entries(loaded.contexts).map(([name, context]) => [
      name,
      { ...context, extracted: { ...context.extracted!, url: 'http://127.0.0.1:1', urls: ['http://127.0.0.1:1'] } },
    ]),
  ) as typeof loaded.contexts;
  system = await adminSystem(
    database.url,
    { serviceToken: TOKEN },
    { ...loaded, contexts, services: { notification: notification.url, saga: saga.url } },
  );
  ({ url } = await system.admin.start());
  await publish(stream, [cancelled(1), cancelled(1, 2), cancelled(2), 'no envelope', cancelled(3)]);
  const both = async () => [(await notification.consumer.position()).quarantined, (await saga.consumer.position()).quarantined];
  await until(async () => (await both()).join() === '5,1', { describe: 'six dead letters', timeoutMs: 60_000 });
});
afterAll(async () => {
  await system?.stop();
  await notification?.stop();
  await saga?.stop();
  await stream?.stop();
  await db?.destroy();
  await database?.drop();
});

describe('dead letters', () => {
  const letters = async (query = 'service=notification'): Promise<readonly Item[]> => (await api(`dlq?${query}`)).body.items;

  it('are listed over all services, page by page, with the services that could not be asked', async () => {
    const { status, body } = await api('dlq');
    expect(status).toBe(200);
    expect(body.items).toHaveLength(6);
    expect(body.next).toBeNull();
    expect(body.missing.map(({ service }) => service)).toEqual(['inventory', 'order']);
    const pages: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page: Body = (await api(`dlq?limit=2${cursor && `&cursor=${encodeURIComponent(cursor)}`}`)).body;
      expect(page.items.length).toBeLessThanOrEqual(2);
      pages.push(...idsOf(page));
      cursor = page.next;
    }
    expect(pages).toEqual(idsOf(body));
    expect((await api('dlq?service=nobody')).status).toBe(409);
    expect((await api('dlq?service=order')).status).toBe(502);
    expect((await api('dlq?cursor=7')).status).toBe(400);
  });

  it('are shown with the fact as it came', async () => {
    const first = (await letters()).find((each) => each.key === 'order/1')!;
    const { body } = await api(`dlq/${first.id}`);
    expect(body).toEqual(first);
    expect(JSON.parse(body.envelope)).toMatchObject({ subject: '1', type: 'order.cancelled.v1' });
    expect((await api('dlq/notification:999')).status).toBe(404);
    expect((await api('dlq/seven')).status).toBe(400);
  });

  it('are replayed once their cause is gone, in order and not before, and both tries are audited', async () => {
    const first = (await letters()).find((each) => each.key === 'order/1')!;
    const early = await banyan('dlq', 'replay', first.id, '--reason', 'too early', '--json');
    expect([early.code, JSON.parse(early.out)]).toEqual([1, { applied: 0, left: 2, error: expect.stringContaining('not known here') }]);
    await db('svc_notification.customer').insert({ order_id: '1', user_id: 'ann' });
    const done = await api(`dlq/${first.id}/replay`, { reason: 'the customer is known now' });
    expect(done.body).toEqual({ applied: 2, left: 0, error: null });
    expect((await letters()).some((each) => each.key === 'order/1')).toBe(false);
    expect(await audited('dlq-replay')).toMatchObject([
      { actor: 'otto', reason: 'the customer is known now', before: { id: first.id, key: 'order/1' }, after: { applied: 2 } },
      { reason: 'too early', after: { left: 2 } },
    ]);
    expect((await api(`dlq/${first.id}/replay`, { reason: 'again' })).status).toBe(404);
  });

  it('are given up with a reason; what is no fact cannot be replayed', async () => {
    const garbage = (await letters()).find((each) => each.key === null)!;
    expect((await api(`dlq/${garbage.id}/replay`, { reason: 'try' })).status).toBe(409);
    expect((await api(`dlq/${garbage.id}/skip`, {})).status).toBe(400);
    const skipped = await banyan('dlq', 'skip', garbage.id, '--reason', 'nobody knows what it was');
    expect(skipped).toMatchObject({ code: 0, out: 'applied 0, left 0' });
    expect(await db('svc_notification.dlq_skipped').select('reason', 'actor')).toEqual([
      { reason: 'nobody knows what it was', actor: 'otto' },
    ]);
    const { out, err, code } = await banyan('dlq', 'list');
    expect(code).toBe(0);
    expect(out).toContain('order/2');
    expect(out).not.toContain(garbage.id);
    expect(err).toContain('not asked: the service order');
  });
});

describe('sagas', () => {
  const started = async (id: string): Promise<void> => {
    await begin(db, { id, definition: 'unknown', version: 1, subject: id, data: {}, deadlineMs: 60_000, limitMs: 60_000 });
    // nobody has a definition for it
    await until(async () => (await api(`sagas/${id}`)).body.state === 'parked', { describe: `saga ${id} to be parked`, timeoutMs: 60_000 });
  };

  it('are listed newest first, page by page and by state, and shown with their timeline', async () => {
    for (const id of ['a', 'b', 'c']) await started(id);
    expect(idsOf((await api('sagas')).body)).toEqual(['c', 'b', 'a']);
    const first = (await api('sagas?limit=2&state=parked')).body;
    const rest = (await api(`sagas?limit=2&state=parked&cursor=${encodeURIComponent(first.next!)}`)).body;
    expect([...idsOf(first), ...idsOf(rest)]).toEqual(['c', 'b', 'a']);
    expect(rest.next).toBeNull();
    expect(pageOf(sagaSchema).parse(first).items).toHaveLength(2);
    expect((await api('sagas?state=running')).body.items).toEqual([]);
    expect((await api('sagas/zzz')).status).toBe(404);
    expect((await api('sagas?cursor=x')).status).toBe(400);
    expect((await api(`sagas?cursor=${encodeURIComponent('2026-99-01T00:00:00.000Z a')}`)).status).toBe(400);
    const shown = await banyan('saga', 'show', 'a');
    expect(shown.out).toMatch(/parked/);
  });

  it('that are parked are decided about by a person, once, and it is audited', async () => {
    const done = await banyan('saga', 'resolve', 'a', '--as', 'done', '--reason', 'shipped by hand', '--json');
    expect([done.code, JSON.parse(done.out).state]).toEqual([0, 'done']);
    expect((await api('sagas/a')).body.timeline.at(-1)).toMatchObject({ what: 'resolved', detail: 'done by otto: shipped by hand' });
    expect((await api('sagas/a/resolve', { as: 'done', reason: 'again' })).status).toBe(409);
    expect(await audited('saga-resolve')).toMatchObject([{ actor: 'otto', after: { id: 'a', state: 'done', as: 'done' } }]);
  });
});

it('a gateway without the token of the services says so', async () => {
  const stranger = await adminSystem(database.url, { serviceToken: null }, system.set.config);
  const { url: other } = await stranger.admin.start();
  try {
    const answer = await fetch(`${other}/api/v1/sagas`, { headers: { authorization: `Bearer ${ADMIN}` } });
    expect([answer.status, await answer.json()]).toEqual([409, expect.objectContaining({ code: 'not-configured' })]);
  } finally {
    await stranger.stop();
  }
});
