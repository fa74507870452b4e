import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Begun } from '../../gateway/dual-write/write.ts';
import { until } from '../harness/wait.ts';
import { answer, cancel, noting, openStore, place, placing, type Store } from './ledger-kit.ts';

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

describe('a ledgered command', () => {
  it('is in the store as sent before the first byte, and applied with its fact in one commit', async () => {
    const write = await store.member();
    const begun = sent(await write.begin(place()));
    expect(await store.row(begun.id)).toMatchObject({
      state: 'sent',
      owner: write.memberId,
      upstream: 'legacy',
      epoch: 1,
      attempts: 1,
      aggregate: null,
    });
    expect(await write.settle(begun.id, begun.fence, answer(201, { id: 100 }))).toEqual({ kind: 'settled', state: 'applied' });
    expect(await store.row(begun.id)).toMatchObject({ aggregate: '100', response_status: 201 });
    expect(await store.facts('100')).toEqual([
      { type: 'order.placed.v1', sequence: '1', phase: null, data: { id: 100, userId: 'u1', items: [{ productId: 7, quantity: 1 }] } },
    ]);
    expect(write.open()).toBe(0);
  });

  it('is not sent when its commit took so long that others may count this gateway as dead, and may be sent again under its key', async () => {
    const slow = await store.member({ staleMs: -1 });
    const command = place();
    await expect(slow.begin(command)).rejects.toMatchObject({ code: 'store-unavailable', retryAfterSeconds: 1 });
    expect(await store.db('banyan.ledger').where({ idempotency_key: command.key }).first('state', 'settled_by')).toEqual({
      state: 'rejected',
      settled_by: 'not-sent',
    });
    const again = sent(await (await store.member()).begin(command));
    expect(await store.row(again.id)).toMatchObject({ state: 'sent', attempts: 2 });
  });

  it('leaves nothing readable of request and answer in SQL', async () => {
    const write = await store.member();
    const begun = sent(await write.begin(place()));
    await write.settle(begun.id, begun.fence, answer(201, { id: 101, secret: 'hunter2' }));
    const { rows } = (await store.db.raw(
      `select l::text || encode(sealed_request, 'escape') || encode(sealed_response, 'escape') as everything from banyan.ledger l where id = ?`,
      [begun.id],
    )) as { rows: { everything: string }[] };
    for (const secret of ['4111', 'hunter2', 'session=secret']) expect(rows[0]!.everything).not.toContain(secret);
  });

  it('sent by 50 clients under one key goes out once, and all get the same answer', async () => {
    const [a, b] = [await store.member(), await store.member()];
    const command = place();
    let sends = 0;
    const results = await Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        const write = i % 2 ? a : b;
        const begun = await write.begin(command);
        if (begun.kind !== 'send') return begun;
        sends += 1;
        await new Promise((resolve) => setTimeout(resolve, 30));
        await write.settle(begun.id, begun.fence, answer(201, { id: 102 }));
        return write.begin(command);
      }),
    );
    expect(sends).toBe(1);
    expect(new Set(results.map((r) => (r.kind === 'replay' ? `${r.status} ${r.body} ${JSON.stringify(r.headers)}` : r.kind)))).toEqual(
      new Set([
        `201 {"id":102} ${JSON.stringify([
          ['Content-Type', 'application/json'],
          ['X-Kept', 'a'],
          ['X-Kept', 'b'],
        ])}`,
      ]),
    );
    expect(await store.facts('102')).toHaveLength(1);
  });

  it('refuses its key for any other request', async () => {
    const write = await store.member();
    const command = place();
    const begun = sent(await write.begin(command));
    await write.settle(begun.id, begun.fence, answer(201, { id: 103 }));
    for (const other of [{ body: Buffer.from('{}') }, { target: '/api/orders?x' }, { headers: { 'content-type': 'text/plain' } }])
      await expect(write.begin({ ...command, ...other })).rejects.toMatchObject({ code: 'key-reused' });
  });

  it('tells another client neither its answer nor that it exists', async () => {
    const write = await store.member();
    const command = place();
    const begun = sent(await write.begin(command));
    await write.settle(begun.id, begun.fence, answer(201, { id: 104 }));
    expect((await write.begin({ ...command, scope: 'scope-b', body: Buffer.from('{"guess":1}') })).kind).toBe('send');
    expect(await write.status(begun.id, 'scope-b', command.key!)).toBeNull();
    expect(await write.status(begun.id, 'scope-a', 'other')).toBeNull();
    expect(await write.status('no-uuid', 'scope-a', command.key!)).toBeNull();
    expect(JSON.parse((await write.status(begun.id, 'scope-a', command.key!))!)).toEqual({
      id: begun.id,
      state: 'applied',
      status: 201,
      body: { id: 104 },
    });
  });

  it('of nobody in particular is forwarded each time, and its fact appended once', async () => {
    const write = await store.member();
    const command = place({ scope: '' });
    for (let i = 0; i < 2; i += 1) {
      const begun = sent(await write.begin(command));
      await write.settle(begun.id, begun.fence, answer(201, { id: 105 }));
      expect(await store.row(begun.id)).toMatchObject({ state: i === 0 ? 'applied' : 'done', sealed_response: null });
    }
    expect(await store.facts('105')).toHaveLength(1);
  });

  it('without a key gets one that is sent upstream', async () => {
    const write = await store.member();
    const begun = sent(await write.begin(place({ key: null })));
    expect(await store.row(begun.id)).toMatchObject({ idempotency_key: begun.key, key_supplied: false });
    await expect(write.begin(place({ key: 'a\nb' }))).rejects.toMatchObject({ code: 'bad-request' });
  });

  it('in flight for too long answers a repeat with 202', async () => {
    const write = await store.member();
    const command = place({ writes: { ...placing, deadlineMs: 30 } });
    const begun = sent(await write.begin(command));
    expect(await write.begin(command)).toEqual({ kind: 'accepted', id: begun.id, state: 'sent' });
  });

  it('whose answer was too large to keep answers a repeat with answer-lost and where to look', async () => {
    const write = await store.member();
    const command = place({ writes: { ...placing, answerLimitBytes: 10 } });
    const begun = sent(await write.begin(command));
    await write.settle(begun.id, begun.fence, answer(201, { id: 106, filler: 'x'.repeat(20) }));
    await expect(write.begin(command)).rejects.toMatchObject({ code: 'answer-lost', details: { location: `/_banyan/writes/${begun.id}` } });
  });

  it.each([
    ['a 2xx that no when covers', cancel('200'), answer(204), 'parked', 'unmapped-answer'],
    ['an answer without the id', place(), answer(201, {}), 'parked', 'unbuildable'],
    ['a redirect that no when covers', cancel('201'), answer(302), 'done', null],
    ['a path that no when names', place({ target: '/api/else' }), answer(200), 'done', null],
    ['a 4xx', place(), answer(422, { error: 'stock' }), 'rejected', null],
    ['a 5xx', place(), answer(500), 'unknown', 'answered 500'],
    ['what capture publishes', place({ writes: { ...placing, publisher: 'capture' } }), answer(201, { id: 107 }), 'done', null],
  ])('ends as it must after %s', async (_, command, outcome, state, error) => {
    const write = await store.member();
    const begun = sent(await write.begin(command));
    await write.settle(begun.id, begun.fence, outcome);
    expect(await store.row(begun.id)).toMatchObject({ state, error: error === null ? null : expect.stringContaining(error) });
    // the client's own answer is unharmed
    if (state !== 'unknown') expect(await write.begin(command)).toMatchObject({ kind: 'replay', status: outcome.response.status });
  });

  it('that never went out may be repeated', async () => {
    const write = await store.member();
    const command = place();
    const first = sent(await write.begin(command));
    await write.settle(first.id, first.fence, { kind: 'not-sent', why: 'refused' });
    const again = sent(await write.begin(command));
    expect(again).toMatchObject({ id: first.id, resent: true, fence: '2' });
    expect(await write.settle(again.id, again.fence, answer(201, { id: 108 }))).toMatchObject({ state: 'applied' });
  });

  it('of unknown outcome is sent again only for a repeat, only where the route allows it, and the late answer of the first attempt changes nothing', async () => {
    const [a, b] = [await store.member(), await store.member()];
    const command = place();
    const first = sent(await a.begin(command));
    await store.die(a.memberId);
    await store.db.raw('select * from banyan.ledger_recover(5000, 100)');
    expect((await store.row(first.id)).state).toBe('unknown');
    const second = sent(await b.begin(command));
    expect(second).toMatchObject({ id: first.id, resent: true });
    expect(await a.settle(first.id, first.fence, answer(201, { id: 109 }))).toEqual({ kind: 'superseded', state: 'sent' });
    expect(await b.settle(second.id, second.fence, answer(201, { id: 109 }))).toEqual({ kind: 'settled', state: 'applied' });
    expect(await store.facts('109')).toHaveLength(1);

    const opaque = place({ writes: { ...placing, idempotency: 'none', deadlineMs: 30 } });
    const lost = sent(await a.begin(opaque));
    await a.settle(lost.id, lost.fence, { kind: 'lost', why: 'reset' });
    expect(await a.begin(opaque)).toEqual({ kind: 'accepted', id: lost.id, state: 'unknown' });
  });

  it('waits for the one before it on the same aggregate, on any replica, then gives up', async () => {
    const [a, b] = [await store.member(), await store.member()];
    const first = sent(await a.begin(cancel('300')));
    const second = b.begin(cancel('300'));
    const impatient = b.begin(cancel('300', { writes: { ...cancel('300').writes, deadlineMs: 20 } }));
    await expect(impatient).rejects.toMatchObject({ code: 'context-unavailable', sent: 'no' });
    expect((await b.begin(cancel('301'))).kind).toBe('send');
    await a.settle(first.id, first.fence, answer(200));
    const next = sent(await second);
    await b.settle(next.id, next.fence, answer(200));
    expect((await store.facts('300')).map((fact) => fact.sequence)).toEqual(['1', '2']);
  });

  it('waits for a freeze as intent, and goes out when it ends without a flip', async () => {
    const write = await store.member();
    await store.context('frozen');
    const command = place({ writes: { ...placing, context: 'frozen' } });
    await store.db('banyan.context').where({ name: 'frozen' }).update({ frozen_by: randomUUID() });
    const pending = write.begin(command);
    await until(async () => (await store.db('banyan.ledger').where({ context: 'frozen', state: 'intent' })).length === 1, {
      describe: 'an intent row',
    });
    await store.db('banyan.context').where({ name: 'frozen' }).update({ frozen_by: null });
    const begun = sent(await pending);
    expect(await store.row(begun.id)).toMatchObject({ state: 'sent' });
    await write.settle(begun.id, begun.fence, answer(201, { id: 110 }));

    await store.db('banyan.context').where({ name: 'frozen' }).update({ frozen_by: randomUUID() });
    const late = place({ writes: { ...placing, context: 'frozen', deadlineMs: 30 } });
    await expect(write.begin(late)).rejects.toMatchObject({ code: 'context-frozen' });
    const moved = place({ writes: { ...placing, context: 'frozen' } });
    const waiting = write.begin(moved);
    await until(async () => (await store.db('banyan.ledger').where({ context: 'frozen', state: 'intent' })).length === 1, {
      describe: 'an intent row',
    });
    await store.db('banyan.context').where({ name: 'frozen' }).update({ frozen_by: null, owner: 'extracted', epoch: 2 });
    await expect(waiting).rejects.toMatchObject({ code: 'context-unavailable', details: { moved: true } });
    // before the other side may take it, a repeat is told to wait, not that its answer is lost
    await store.db('banyan.context').where({ name: 'frozen' }).update({ frozen_by: randomUUID() });
    await expect(write.begin({ ...moved, upstream: 'extracted', epoch: 2 })).rejects.toMatchObject({ details: { moved: true } });
    await store.db('banyan.context').where({ name: 'frozen' }).update({ frozen_by: null });
    await expect(write.begin(moved)).rejects.toMatchObject({ details: { moved: true } });
    // decided anew, under the same key, by whoever owns the writes now
    const again = sent(await write.begin({ ...moved, upstream: 'extracted', epoch: 2 }));
    expect(await write.settle(again.id, again.fence, answer(201, { id: 111 }))).toEqual({ kind: 'settled', state: 'done' });
    expect(await store.facts('111')).toEqual([]);
    await expect(write.begin(place({ writes: { ...placing, context: 'frozen' } }))).rejects.toMatchObject({ details: { moved: true } });
    await expect(write.begin(place({ writes: { ...placing, context: 'nobody' } }))).rejects.toMatchObject({ code: 'context-unavailable' });
  });

  it('pins its client in the same commit and tells the others', async () => {
    const heard: string[] = [];
    const client = await store.db.client.acquireConnection();
    client.on('notification', (message: { payload: string }) => heard.push(message.payload));
    await client.query('listen banyan_pin');
    const write = await store.member();
    const begun = sent(await write.begin(place({ pin: { client: 'hash-1', ms: 10_000 } })));
    await write.settle(begun.id, begun.fence, answer(201, { id: 112 }));
    expect(await store.db('banyan.pin').where({ client: 'hash-1' }).first()).toMatchObject({ context: 'order', side: 'legacy' });
    await until(() => heard.length > 0, { describe: 'the notification' });
    expect(JSON.parse(heard[0]!)).toEqual([{ context: 'order', client: 'hash-1', side: 'legacy', until: expect.any(Number) }]);
    await client.query('unlisten *');
    await store.db.client.releaseConnection(client);
  });

  it('of mode tentative puts its event first, and exactly one confirmed or compensated one after it', async () => {
    const write = await store.member();
    const note = (id: string) => place({ writes: noting, method: 'PUT', target: `/api/notes/${id}`, body: Buffer.from('{"text":"hi"}') });
    const good = sent(await write.begin(note('n1')));
    expect((await store.facts('n1')).map((fact) => fact.phase)).toEqual(['tentative']);
    await write.settle(good.id, good.fence, answer(200));
    expect((await store.facts('n1')).map((fact) => [fact.phase, fact.sequence])).toEqual([
      ['tentative', '1'],
      ['confirmed', '2'],
    ]);
    const refused = sent(await write.begin(note('n2')));
    expect(await write.settle(refused.id, refused.fence, answer(409))).toEqual({ kind: 'settled', state: 'compensating' });
    expect((await store.facts('n2')).map((fact) => fact.phase)).toEqual(['tentative', 'compensated']);
    const open = sent(await write.begin(note('n3')));
    await write.settle(open.id, open.fence, { kind: 'lost', why: 'reset' });
    expect((await store.facts('n3')).map((fact) => fact.phase)).toEqual(['tentative']);
    const envelopes = await store.db('banyan.outbox').where({ subject: 'n1' }).orderBy('position').select('id', 'envelope');
    expect(JSON.parse(envelopes[1].envelope).causationid).toBe(envelopes[0].id);
  });

  it('answers its client although the store is gone, and commits when it is back', async () => {
    const broken = { on: false };
    const db = new Proxy(store.db, {
      get: (target, name) =>
        name === 'raw' && broken.on
          ? () => Promise.reject(Object.assign(new Error('gone'), { code: 'ECONNREFUSED' }))
          : Reflect.get(target, name),
    });
    const write = await store.member({ db, answerAfterMs: 20 });
    const begun = sent(await write.begin(place()));
    broken.on = true;
    await expect(write.begin(place())).rejects.toMatchObject({ code: 'store-unavailable', sent: 'no' });
    expect(await write.settle(begun.id, begun.fence, answer(201, { id: 113 }))).toEqual({ kind: 'deferred' });
    broken.on = false;
    await until(async () => (await store.row(begun.id)).state === 'applied', { describe: 'the late commit' });
    expect(await store.facts('113')).toHaveLength(1);
  });

  it('is refused while the backlog is full', async () => {
    const write = await store.member({ backlogFull: () => true });
    await expect(write.begin(place())).rejects.toMatchObject({ code: 'backlog-full', retryAfterSeconds: 5 });
  });

  it('keeps sequences contiguous while many settle at once', async () => {
    const write = await store.member();
    await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const begun = sent(await write.begin(place()));
        await write.settle(begun.id, begun.fence, answer(201, { id: `c${i % 7}` }));
      }),
    );
    for (let i = 0; i < 7; i += 1) {
      const sequences = (await store.facts(`c${i}`)).map((fact) => Number(fact.sequence));
      expect(sequences).toEqual(sequences.map((_, n) => n + 1));
    }
  });
});
