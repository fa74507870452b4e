import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { prune } from '../../gateway/dual-write/ledger.ts';
import { createOperator } from '../../gateway/dual-write/operator.ts';
import { fillTemplate } from '../../gateway/dual-write/path-template.ts';
import { createReconciler } from '../../gateway/dual-write/reconciler.ts';
import { createRecovery } from '../../gateway/dual-write/recovery.ts';
import { readFinding } from '../../gateway/dual-write/resolve.ts';
import type { Command, RouteWrites } from '../../gateway/dual-write/route-writes.ts';
import { until } from '../harness/wait.ts';
import { answer, cancel, cancelling, openStore, place, placing, quiet, type Store, seal } from './ledger-kit.ts';

let store: Store;
beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());

type Answers = (path: string) => { status: number; body: string };

/** A gateway that recovers, with an upstream that answers as told. */
const recovering = async (answers: Answers, over: { routes?: RouteWrites[]; maxAttempts?: number } = {}) => {
  const { memberId } = await store.member();
  const asked: string[] = [];
  const routes = over.routes ?? [placing, cancelling];
  const reconcile = createReconciler({
    db: store.db,
    seal,
    ask: async (_context, upstream, path) => {
      asked.push(`${upstream} ${path}`);
      const { status, body } = answers(path);
      return { status, body: Buffer.from(body) };
    },
    routeOf: (_context, route) => routes.find((one) => one.route === route),
    log: { ...quiet, error: () => {} },
    firstDelayMs: 5,
    maxDelayMs: 20,
    ...(over.maxAttempts === undefined ? {} : { maxAttempts: over.maxAttempts }),
  });
  const recovery = createRecovery({ db: store.db, memberId, reconcile, wakeRelay: () => {}, log: quiet, intervalMs: 10, leaseMs: 2_000 });
  recovery.start();
  return { asked, stop: recovery.stop };
};

/** A command whose gateway died after sending. */
const orphan = async (command: Command): Promise<string> => {
  const dying = await store.member();
  const begun = await dying.begin(command);
  if (begun.kind !== 'send') throw new Error(begun.kind);
  await store.die(dying.memberId);
  return begun.id;
};
const settles = (id: string, state: string) =>
  until(async () => (await store.row(id)).state === state, { describe: `${id} to be ${state}` });

describe('recovery', () => {
  it('asks about what a dead gateway had sent; the fact and the replay come from what it finds', async () => {
    const command = place();
    const id = await orphan(command);
    const { asked, stop } = await recovering(() => ({ status: 200, body: '[{"id":9007199254740993,"total":10.00}]' }));
    await settles(id, 'applied');
    await stop();
    expect(asked).toEqual([`legacy /api/orders?ref=${command.key}`]);
    expect((await store.facts('9007199254740993')).map((fact) => fact.data)).toEqual([
      { id: '9007199254740993', userId: 'u1', items: [{ productId: 7, quantity: 1 }] },
    ]);
    const replay = await (await store.member()).begin(command);
    expect(replay).toMatchObject({ kind: 'replay', status: 201 });
    // numbers as legacy wrote them
    expect(replay.kind === 'replay' && replay.body.toString()).toBe('{"id":9007199254740993,"total":10.00}');
  });

  it('has no answer to replay when resolve names no body', async () => {
    const command = cancel('500');
    const id = await orphan(command);
    const { asked, stop } = await recovering(() => ({ status: 200, body: '{"cancelledAt":"2026-01-01"}' }));
    await settles(id, 'applied');
    await stop();
    expect(asked).toEqual(['legacy /api/orders/500']);
    expect(await store.facts('500')).toHaveLength(1);
    await expect((await store.member()).begin(command)).rejects.toMatchObject({
      code: 'answer-lost',
      details: { location: `/_banyan/writes/${id}` },
    });
  });

  it('believes "not there" only after the settling time', async () => {
    const early = await orphan(place());
    const late = await orphan(place({ writes: { ...placing, settleMs: 0 } }));
    const { stop } = await recovering(() => ({ status: 404, body: '' }));
    await settles(late, 'rejected');
    await until(async () => Number((await store.row(early)).attempts) > 3, { describe: 'several looks' });
    expect((await store.row(early)).state).toBe('unknown');
    await stop();
    await store.db('banyan.ledger').where({ id: early }).delete();
  });

  it('parks what it cannot find out, and a person decides', async () => {
    const id = await orphan(cancel('501', { writes: { ...cancelling, settleMs: 0 } }));
    const { stop } = await recovering(() => ({ status: 503, body: 'no' }), { maxAttempts: 3 });
    await settles(id, 'parked');
    await stop();
    const operator = createOperator({ db: store.db, seal, routeOf: () => cancelling, wakeRelay: () => {} });
    expect(await operator.get(id)).toMatchObject({ id, state: 'parked', aggregate: '501', error: 'the upstream answered 503 when asked' });
    expect(await operator.unresolved(['order'])).toEqual([{ id, context: 'order', state: 'parked' }]);
    // it holds its own aggregate, and no other
    const write = await store.member();
    await expect(write.begin(cancel('501', { writes: { ...cancelling, deadlineMs: 10 } }))).rejects.toMatchObject({
      code: 'context-unavailable',
    });
    expect((await write.begin(cancel('502'))).kind).toBe('send');
    expect(await operator.resolve(id, 'applied', 'seen in the shop', 'ann')).toMatchObject({
      state: 'applied',
      event: { type: 'order.cancelled.v1', shard: null },
    });
    expect((await store.row(id)).resolution).toMatchObject({ as: 'applied', reason: 'seen in the shop', actor: 'ann' });
    await expect(operator.resolve(id, 'applied', 'again', 'ann')).rejects.toMatchObject({ code: 'illegal-move' });
    await expect(operator.resolve('00000000-0000-7000-8000-000000000000', 'applied', 'x', 'ann')).rejects.toMatchObject({
      code: 'not-found',
    });
  });

  it('parks at once, after the settling time, what nothing can tell of', async () => {
    const opaque: RouteWrites = { ...placing, route: 'POST /api/opaque', resolve: null, settleMs: 0 };
    const id = await orphan(place({ writes: opaque }));
    const { asked, stop } = await recovering(() => ({ status: 200, body: '[]' }), { routes: [opaque] });
    await settles(id, 'parked');
    await stop();
    expect(asked).toEqual([]);
    const operator = createOperator({ db: store.db, seal, routeOf: () => opaque, wakeRelay: () => {} });
    await expect(operator.resolve(id, 'applied', 'x', 'ann')).rejects.toMatchObject({ code: 'unprocessable' });
    expect(await operator.resolve(id, 'no-event', 'told the service by hand', 'ann')).toMatchObject({ state: 'done' });
  });

  it('publishes nothing for what the extracted side executed', async () => {
    await store.context('moved');
    await store.db('banyan.context').where({ name: 'moved' }).update({ owner: 'extracted', epoch: 2 });
    const id = await orphan(place({ writes: { ...placing, context: 'moved' }, upstream: 'extracted', epoch: 2 }));
    const { asked, stop } = await recovering(() => ({ status: 200, body: '[{"id":"e1"}]' }));
    await settles(id, 'done');
    await stop();
    expect(asked[0]).toMatch(/^extracted /);
    expect(await store.facts('e1')).toEqual([]);
  });

  it('leaves the rows of the living alone', async () => {
    const write = await store.member();
    const begun = await write.begin(place());
    const { stop } = await recovering(() => ({ status: 404, body: '' }));
    await settles(await orphan(place({ writes: { ...placing, settleMs: 0 } })), 'rejected');
    await stop();
    expect(begun.kind === 'send' && (await store.row(begun.id)).state).toBe('sent');
  });
});

describe('forgetting', () => {
  it('keeps what is open and what is young', async () => {
    await store.context('old');
    const write = await store.member();
    const ids: string[] = [];
    for (const id of ['f1', 'f1', 'f2']) {
      const begun = await write.begin(place({ writes: { ...placing, context: 'old' } }));
      if (begun.kind !== 'send') throw new Error(begun.kind);
      await write.settle(begun.id, begun.fence, answer(201, { id }));
      ids.push(begun.id);
    }
    await store.db('banyan.ledger').where({ id: ids[0]! }).update({ state: 'published' });
    await store.db('banyan.ledger').where({ id: ids[0]! }).update({ state: 'done', updated_at: 'epoch' });
    await store.observe({ context: 'old', subject: 'f9', change: 'forgotten' });
    await prune(store.db, 60_000, 100);
    expect((await store.db('banyan.ledger').where({ context: 'old' }).orderBy('id').select('id')).map((row) => row.id)).toEqual(
      ids.slice(1),
    );
    expect(await store.observe({ context: 'old', subject: 'f9', change: 'forgotten' })).toBe('skipped');
  });
});

describe('the ledger for people', () => {
  it('is listed newest first, page by page', async () => {
    await store.context('listed');
    const write = await store.member();
    const ids: string[] = [];
    for (let i = 0; i < 5; i += 1) {
      const begun = await write.begin(place({ writes: { ...placing, context: 'listed' } }));
      if (begun.kind === 'send') {
        ids.unshift(begun.id);
        if (i < 4) await write.settle(begun.id, begun.fence, answer(409));
      }
    }
    const operator = createOperator({ db: store.db, seal, routeOf: () => placing, wakeRelay: () => {} });
    const first = await operator.list({ context: 'listed', limit: 3 });
    const second = await operator.list({ context: 'listed', limit: 3, cursor: first.next! });
    expect([...first.items, ...second.items].map((entry) => entry.id).sort()).toEqual([...ids].sort());
    expect([first.items.length, second.items.length, second.next]).toEqual([3, 2, null]);
    expect((await operator.list({ context: 'listed', state: 'sent' })).items).toMatchObject([
      { state: 'sent', upstream: 'legacy', epoch: 1, attempts: 1 },
    ]);
    expect(await operator.inFlight(['listed'])).toBe(1);
    await expect(operator.list({ state: 'lost' })).rejects.toMatchObject({ code: 'bad-request' });
    await expect(operator.list({ cursor: 'x' })).rejects.toMatchObject({ code: 'bad-request' });
  });
});

describe('reading what the upstream says', () => {
  const resolve = { get: '/x', applied: '$[0].id', body: '$[0]', status: 200 };
  it.each([
    [200, '[{"id":0}]', { kind: 'found', body: '{"id":0}' }],
    [200, '[]', { kind: 'absent' }],
    [200, '[{"id":null}]', { kind: 'absent' }],
    [200, '', { kind: 'absent' }],
    [404, '<html>', { kind: 'absent' }],
    [200, '<html>login</html>', { kind: 'unclear' }],
    [401, '', { kind: 'unclear' }],
    [302, '', { kind: 'unclear' }],
    [500, '[{"id":1}]', { kind: 'unclear' }],
  ])('%d %s', (status, body, expected) => {
    expect(readFinding(resolve, status, body)).toMatchObject(expected);
  });

  it('fills places with encoded values, or not at all', () => {
    expect(fillTemplate('/o/{id}?k={key}', { key: 'a b&c', route: 'POST /o/:id/x', target: '/o/1%2F2/x' })).toBe('/o/1%2F2?k=a%20b%26c');
    const places = { key: 'k', route: 'POST /o/:id/x', target: '/o/1/x' };
    expect(fillTemplate('/o/{none}', places)).toBeNull();
    expect(fillTemplate('/o/{aggregate}', places)).toBeNull();
    expect(fillTemplate('/o/{aggregate}', { ...places, aggregate: 'a/b' })).toBe('/o/a%2Fb');
  });
});
