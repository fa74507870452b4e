import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { AppError } from '../../contracts/errors.ts';
import { compileEvents } from '../../gateway/core/event-mapping.ts';
import { type CompensationDeps, createCompensation } from '../../gateway/dual-write/compensation.ts';
import { claimUnknown, decideRow } from '../../gateway/dual-write/ledger.ts';
import { createOperator } from '../../gateway/dual-write/operator.ts';
import { type Ask, createReconciler } from '../../gateway/dual-write/reconciler.ts';
import type { Command, RouteWrites } from '../../gateway/dual-write/route-writes.ts';
import type { Begun } from '../../gateway/dual-write/write.ts';
import { answer, noting, openStore, place, placing, quiet, type Store, seal } from './ledger-kit.ts';

let store: Store;
beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());

type Sent = Extract<Begun, { kind: 'send' }>;
const sent = (begun: Begun): Sent => {
  if (begun.kind !== 'send') throw new Error(`expected send, got ${begun.kind}`);
  return begun;
};

/** The event wants `userId`, which a request may lack. */
const undoable: RouteWrites = { ...placing, compensate: { to: 'legacy', method: 'POST', path: '/api/orders/{aggregate}/cancel' } };
const unbuildable = (over: Partial<RouteWrites> = {}): Command =>
  place({ writes: { ...undoable, ...over }, body: Buffer.from('{"items":[{"productId":7,"quantity":1}]}') });

/** Puts one command into the state in which legacy has to take it back. */
const applied = async (command: Command, id: number): Promise<string> => {
  const write = await store.member();
  const begun = sent(await write.begin(command));
  expect(await write.settle(begun.id, begun.fence, answer(201, { id }))).toEqual({ kind: 'settled', state: 'compensating' });
  return begun.id;
};

type Script = (attempt: number) => { status: number; detail: string | null } | Error;

/** Compensation against a legacy that answers as told. One call looks once. */
const compensating = async (script: Script, over: Partial<CompensationDeps> = {}) => {
  const { memberId } = await store.member();
  const requests: string[] = [];
  const look = createCompensation({
    db: store.db,
    memberId,
    send: (row, key) => {
      requests.push(`${row.undo.to} ${row.undo.method} ${row.undo.path} ${key}`);
      const said = script(requests.length);
      return said instanceof Error ? Promise.reject(said) : Promise.resolve(said);
    },
    wakeRelay: () => {},
    log: { ...quiet, error: () => {} },
    firstDelayMs: 0,
    ...over,
  });
  return { look, requests };
};
const ok = { status: 200, detail: null };
const operator = () =>
  createOperator({ db: store.db, seal, routeOf: (_, route) => [undoable, noting].find((one) => one.route === route), wakeRelay: () => {} });

describe('a command whose event cannot be built, on a route with writes.compensate', () => {
  it('is taken back by one keyed request, and says so to a repeat of its key', async () => {
    const command = unbuildable();
    const id = await applied(command, 500);
    expect(await store.row(id)).toMatchObject({ undo_state: 'due', error: expect.stringContaining('unbuildable: order.placed.v1') });
    const { look, requests } = await compensating(() => ok);
    await look();
    expect(requests).toEqual([`legacy POST /api/orders/500/cancel compensate-${id}`]);
    expect(await store.row(id)).toMatchObject({ state: 'compensated', undo_state: 'done', undo_attempts: 1, sealed_request: null });
    await look();
    expect(requests).toHaveLength(1);
    const write = await store.member();
    await expect(write.begin(command)).rejects.toMatchObject({ code: 'answer-lost', message: expect.stringContaining('taken back') });
    expect(JSON.parse((await write.status(id, 'scope-a', command.key!))!)).toMatchObject({ state: 'compensated', status: 201 });
    expect(await store.facts('500')).toEqual([]);
  });

  it('without one waits for a person, and an answer that the mapping forgot always does', async () => {
    const write = await store.member();
    const plain = sent(await write.begin({ ...unbuildable(), writes: placing }));
    expect(await write.settle(plain.id, plain.fence, answer(201, { id: 501 }))).toMatchObject({ state: 'parked' });
    const other = compileEvents([
      { when: 'POST /api/orders 201', type: 'order.placed.v1', aggregate: '$.response.body.id', data: '$.response.body' },
    ]);
    const unmapped = sent(await write.begin(place({ writes: { ...undoable, events: other } })));
    expect(await write.settle(unmapped.id, unmapped.fence, answer(200, { id: 502 }))).toMatchObject({ state: 'parked' });
    // nothing says which order to cancel
    const nameless = sent(await write.begin(unbuildable()));
    expect(await write.settle(nameless.id, nameless.fence, answer(201, {}))).toMatchObject({ state: 'parked' });
  });

  it('is asked for again under the same key while nobody knows, by whoever lives', async () => {
    const id = await applied(unbuildable(), 510);
    // a gateway that died between the commit and the answer
    await store.db.raw('select * from banyan.ledger_undo_claim(?, 0, 10)', [randomUUID()]);
    expect(await store.row(id)).toMatchObject({ state: 'compensating', undo_state: 'sent' });
    const script = [
      new AppError('upstream-timeout', 'no answer', { sent: 'maybe' }),
      { status: 503, detail: null },
      { status: 429, detail: null },
      ok,
    ];
    const { look, requests } = await compensating((attempt) => script[attempt - 1]!);
    for (let i = 0; i < 4; i += 1) await look();
    expect(new Set(requests)).toEqual(new Set([`legacy POST /api/orders/510/cancel compensate-${id}`]));
    expect(requests).toHaveLength(4);
    expect(await store.row(id)).toMatchObject({ state: 'compensated', undo_attempts: 5 });
  });

  it('is never asked for twice where legacy honours no keys', async () => {
    const lost = await applied(unbuildable({ idempotency: 'none' }), 520);
    const { look, requests } = await compensating(() => new AppError('upstream-reset', 'reset', { sent: 'maybe' }));
    await look();
    expect(await store.row(lost)).toMatchObject({ state: 'parked', error: 'reset' });
    const died = await applied(unbuildable({ idempotency: 'none' }), 521);
    await store.db.raw('select * from banyan.ledger_undo_claim(?, 0, 10)', [randomUUID()]);
    await look();
    expect(requests).toHaveLength(1);
    expect(await store.row(died)).toMatchObject({ state: 'parked', error: expect.stringContaining('nobody knows') });
    // what surely did not go out may
    const unsent = await applied(unbuildable({ idempotency: 'none' }), 522);
    const second = await compensating((attempt) => (attempt === 1 ? new AppError('upstream-unreachable', 'down', { sent: 'no' }) : ok));
    await second.look();
    await second.look();
    expect(await store.row(unsent)).toMatchObject({ state: 'compensated' });
  });

  it('waits for a person when legacy refuses, or after too many attempts; who may ask for it again, or decide otherwise', async () => {
    const refused = await applied(unbuildable(), 530);
    const tired = await applied(unbuildable(), 531);
    const { look } = await compensating(() => ({ status: 500, detail: null }), { maxAttempts: 1 });
    const conflict = await compensating(() => ({ status: 409, detail: 'shipped' }), { concurrency: 1 });
    await conflict.look();
    await look();
    const [first, second] = [await store.row(refused), await store.row(tired)];
    expect([first.state, second.state]).toEqual(['parked', 'parked']);
    expect([first.error, second.error].sort()).toEqual([
      'legacy answered 409 when it was to take it back: shipped',
      'legacy answered 500 when it was to take it back',
    ]);
    expect(await operator().resolve(refused, 'compensate', 'not shipped any more', 'ann')).toMatchObject({ state: 'compensating' });
    const again = await compensating(() => ok);
    await again.look();
    expect(again.requests).toEqual([`legacy POST /api/orders/530/cancel compensate-${refused}`]);
    expect((await store.row(refused)).state).toBe('compensated');
    expect(await operator().resolve(tired, 'not-applied', 'cancelled by hand', 'ann')).toMatchObject({ state: 'rejected' });
    expect((await store.row(tired)).undo_state).toBeNull();
  });

  it('holds its aggregate, keeps the context from being handed over, and waits out a freeze', async () => {
    const writes: RouteWrites = {
      ...undoable,
      route: 'POST /api/orders/:id/cancel',
      compensate: { to: 'legacy', method: 'DELETE', path: '/api/orders/{id}/cancel' },
    };
    const bad: RouteWrites = {
      ...writes,
      events: compileEvents([
        {
          when: 'POST /api/orders/:id/cancel 2xx',
          type: 'order.cancelled.v1',
          aggregate: '$.params.id',
          data: { cancelledAt: '$.response.body.at' },
        },
      ]),
    };
    const command = (over: Partial<RouteWrites> = {}) =>
      place({ writes: { ...bad, ...over }, target: '/api/orders/540/cancel', body: Buffer.from('{}') });
    const id = await applied(command(), 540);
    await expect((await store.member()).begin(command({ deadlineMs: 10 }))).rejects.toMatchObject({ code: 'context-unavailable' });
    expect(await operator().unresolved(['order'])).toContainEqual({ id, context: 'order', state: 'compensating' });
    const { look, requests } = await compensating(() => ok);
    await store.db('banyan.context').where({ name: 'order' }).update({ frozen_by: randomUUID() });
    await look();
    expect(requests).toEqual([]);
    await store.db('banyan.context').where({ name: 'order' }).update({ frozen_by: null });
    await store.db('banyan.ledger').where({ id }).update({ next_at: 'epoch' });
    await look();
    expect(requests).toEqual([`legacy DELETE /api/orders/540/cancel compensate-${id}`]);
    expect(sent(await (await store.member()).begin(command()))).toBeDefined();
  });
});

describe('a tentative fact', () => {
  const both = compileEvents([
    {
      when: 'PUT /api/notes/:id 200',
      type: 'note.set.v1',
      aggregate: '$.params.id',
      data: { text: '$.request.body.text' },
      mode: 'tentative',
    },
    {
      when: 'PUT /api/notes/:id 201',
      type: 'note.made.v1',
      aggregate: '$.params.id',
      data: { text: '$.request.body.text' },
      mode: 'tentative',
    },
    {
      when: 'PUT /api/notes/:id 200',
      type: 'order.cancelled.v1',
      aggregate: '$.response.body.order',
      data: { id: '$.response.body.order' },
    },
  ]);
  const note = (id: string, over: Partial<RouteWrites> = {}): Command =>
    place({ writes: { ...noting, events: both, ...over }, method: 'PUT', target: `/api/notes/${id}`, body: Buffer.from('{"text":"hi"}') });
  const phases = async (id: string) => (await store.facts(id)).map((fact) => `${fact.type} ${fact.phase}`);
  const publish = async (id: string) => {
    const [row] = (await store.db('banyan.outbox').where({ subject: id }).orderBy('position').limit(1)) as [
      { position: string; lane: number },
    ];
    const member = randomUUID();
    await store
      .db('banyan.lane')
      .where({ lane: row.lane })
      .update({ owner: member, token: 9, until: store.db.raw("now() + interval '1 h'") });
    const positions = (await store.db('banyan.outbox').where({ subject: id }).pluck('position')).join(',');
    await store.db.raw('select banyan.relay_mark_records(?, ?::smallint[], ?::bigint[], ?::smallint[], ?::text[], ?::text[], ?::text[])', [
      member,
      [row.lane],
      ['9'],
      [row.lane],
      ['shard'],
      ['1'],
      [positions],
    ] as unknown as string[]);
  };

  it('that the answer does not speak of is taken back beside the one that is confirmed', async () => {
    const write = await store.member();
    const begun = sent(await write.begin(note('t1')));
    expect(await write.settle(begun.id, begun.fence, answer(201))).toMatchObject({ state: 'applied' });
    expect(await phases('t1')).toEqual([
      'note.set.v1 tentative',
      'note.made.v1 tentative',
      'note.made.v1 confirmed',
      'note.set.v1 compensated',
    ]);
    await publish('t1');
    expect((await store.row(begun.id)).state).toBe('done');
  });

  it('is taken back on the stream once legacy has taken its part back, and not before', async () => {
    const undo = { to: 'adapter', method: 'POST', path: null } as const;
    // 200 also wants an event about an order, and the answer names none
    const write = await store.member();
    const begun = sent(await write.begin(note('t3', { compensate: undo })));
    expect(await write.settle(begun.id, begun.fence, answer(200))).toMatchObject({ state: 'compensating' });
    await publish('t3');
    expect((await store.row(begun.id)).state).toBe('compensating');
    expect(await phases('t3')).toEqual(['note.set.v1 tentative', 'note.made.v1 tentative']);
    const { look, requests } = await compensating(() => ok);
    await look();
    expect(requests).toEqual([`adapter POST t3 compensate-${begun.id}`]);
    expect((await phases('t3')).slice(2)).toEqual(['note.made.v1 compensated', 'note.set.v1 compensated']);
    expect((await store.row(begun.id)).state).toBe('compensating');
    await publish('t3');
    expect((await store.row(begun.id)).state).toBe('compensated');
  });

  it('gets its one confirmed or compensated fact from a person too', async () => {
    const write = await store.member();
    const park = async (id: string) => {
      const begun = sent(await write.begin({ ...note(id), writes: noting }));
      // 304 is a redirect that no when covers
      expect(await write.settle(begun.id, begun.fence, answer(304))).toMatchObject({ state: 'parked' });
      return begun.id;
    };
    const [yes, no] = [await park('t4'), await park('t5')];
    await expect(operator().resolve(yes, 'no-event', 'x', 'ann')).rejects.toMatchObject({ code: 'unprocessable' });
    await expect(operator().resolve(yes, 'compensate', 'x', 'ann')).rejects.toMatchObject({ code: 'unprocessable' });
    await operator().resolve(yes, 'applied', 'seen', 'ann');
    await operator().resolve(no, 'not-applied', 'not seen', 'ann');
    expect(await phases('t4')).toEqual(['note.set.v1 tentative', 'note.set.v1 confirmed']);
    expect(await phases('t5')).toEqual(['note.set.v1 tentative', 'note.set.v1 compensated']);
  });
});

describe('a command whose transaction tells the ledger itself (idempotency: database)', () => {
  const writes: RouteWrites = { ...placing, idempotency: 'database', resolve: null };
  const facts = (id: string) => [{ type: 'order.placed.v1', subject: id, data: { id, userId: 'u1', items: [] } }];
  const attest = (id: string, of: object[] | null, on: Knex = store.db) =>
    on.raw('select banyan.ledger_attest(?, 201, ?::jsonb)', [id, of === null ? null : JSON.stringify(of)] as string[]);
  const recover = async (command: Command, ask: Ask = () => Promise.reject(new Error('nobody answers'))) => {
    const { memberId } = await store.member();
    const look = createReconciler({
      db: store.db,
      seal,
      ask,
      routeOf: () => command.writes,
      log: { ...quiet, error: () => {} },
      firstDelayMs: 0,
    });
    for (const row of await claimUnknown(store.db, memberId, 0, 100)) await look(row);
  };
  const lose = async (command: Command): Promise<string> => {
    const write = await store.member();
    const begun = sent(await write.begin(command));
    return begun.id;
  };
  const lost = async (id: string) => {
    await store.db('banyan.ledger').where({ id }).update({ deadline: 'epoch' });
    await store.db.raw('select * from banyan.ledger_recover(5000, 100)');
  };

  it('is known to be done although its answer was lost, at once and without asking', async () => {
    const command = place({ writes });
    const id = await lose(command);
    await attest(id, facts('600'));
    await lost(id);
    await recover(command);
    expect(await store.row(id)).toMatchObject({ state: 'applied', settled_by: 'attested' });
    expect(await store.facts('600')).toHaveLength(1);
    await expect((await store.member()).begin(command)).rejects.toMatchObject({ code: 'answer-lost' });
  });

  it('is known not to be done, at once; and an attempt that comes too late rolls back', async () => {
    const command = place({ writes });
    const id = await lose(command);
    await lost(id);
    await recover(command);
    expect(await store.row(id)).toMatchObject({ state: 'rejected', settled_by: 'absent' });
    await store.db.raw('create table if not exists public.effect (id text)');
    await expect(
      store.db.transaction(async (trx) => {
        await trx.raw('insert into public.effect values (?)', ['late']);
        await attest(id, null, trx);
      }),
    ).rejects.toMatchObject({ code: 'BY409' });
    expect((await store.db('public.effect')).length).toBe(0);
    // so it may be sent again, by a repeat of its key
    const again = sent(await (await store.member()).begin(command));
    expect(again).toMatchObject({ id, resent: true });
  });

  it('waits for a transaction that is open', async () => {
    const command = place({ writes });
    const id = await lose(command);
    await lost(id);
    const trx = await store.db.transaction();
    await attest(id, facts('610'), trx);
    const { memberId } = await store.member();
    expect(await claimUnknown(store.db, memberId, 0, 100)).toEqual([]);
    expect(await decideRow(store.db, id, String((await store.row(id)).fence))).toBe('busy');
    await trx.commit();
    await recover(command);
    expect(await store.row(id)).toMatchObject({ state: 'applied', settled_by: 'attested' });
  });

  it('is done by one of two attempts, whatever the other one answered', async () => {
    const command = place({ writes });
    const id = await lose(command);
    await lost(id);
    const write = await store.member();
    const second = sent(await write.begin(command));
    await attest(id, facts('620'));
    await expect(attest(id, facts('620'))).rejects.toMatchObject({ code: 'BY409' });
    expect(await write.settle(second.id, second.fence, answer(409))).toEqual({ kind: 'settled', state: 'unknown' });
    await recover(command);
    expect(await store.row(id)).toMatchObject({ state: 'applied', response_status: null });
    expect(await store.facts('620')).toHaveLength(1);
  });

  it('has its events from the mapping where its transaction names none, and its answer from resolve', async () => {
    const command = place({ writes: { ...writes, resolve: placing.resolve } });
    const id = await lose(command);
    await attest(id, null);
    await lost(id);
    await recover(command, () => Promise.resolve({ status: 200, body: Buffer.from('[{"id":630}]') }));
    expect(await store.row(id)).toMatchObject({ state: 'applied', settled_by: 'attested', response_status: 201 });
    expect(await store.facts('630')).toHaveLength(1);
    expect(await (await store.member()).begin(command)).toMatchObject({ kind: 'replay', status: 201, body: Buffer.from('{"id":630}') });
  });

  it('that was answered as done and told nobody waits for a person: nothing unknown could be trusted', async () => {
    const write = await store.member();
    const silent = sent(await write.begin(place({ writes })));
    await write.settle(silent.id, silent.fence, answer(201, { id: 640 }));
    expect(await store.row(silent.id)).toMatchObject({ state: 'parked', error: expect.stringContaining('unattested') });
    const good = sent(await write.begin(place({ writes })));
    await attest(good.id, facts('641'));
    expect(await write.settle(good.id, good.fence, answer(201, { id: 641 }))).toMatchObject({ state: 'applied' });
    expect((await store.facts('641'))[0]!.data).toEqual({ id: '641', userId: 'u1', items: [] });
  });

  it.each([
    ['an entry that is none', '00000000-0000-7000-8000-000000000000', 201, null, 'BY404'],
    ['a status that says of no change', null, 404, null, '22023'],
    ['facts without a subject', null, 201, [{ type: 'x', data: {} }], '22023'],
    ['facts that are no list', null, 201, { type: 'x' }, '22023'],
  ])('refuses %s', async (_, id, status, of, code) => {
    const known = id ?? (await lose(place({ writes })));
    await expect(
      store.db.raw('select banyan.ledger_attest(?, ?, ?::jsonb)', [known, status, of === null ? null : JSON.stringify(of)] as string[]),
    ).rejects.toMatchObject({ code });
  });
});
