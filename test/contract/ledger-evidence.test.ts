import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Command, RouteWrites } from '../../gateway/dual-write/route-writes.ts';
import type { DualWrite } from '../../gateway/dual-write/write.ts';
import { answer, cancel, openStore, place, placing, type Store } from './ledger-kit.ts';

let store: Store;
let write: DualWrite & { memberId: string };
let made = 0;

/** A context of its own per test: "wait" looks at every open row of a context. */
const fresh = async (): Promise<string> => {
  made += 1;
  await store.context(`c${made}`);
  return `c${made}`;
};
const inside = (context: string, command: Command, over: Partial<RouteWrites> = {}): Command => ({
  ...command,
  writes: { ...command.writes, context, ...over },
});

beforeAll(async () => {
  store = await openStore();
  write = await store.member();
});
afterAll(() => store.close());

const send = async (command: Command): Promise<{ id: string; fence: string }> => {
  const begun = await write.begin(command);
  if (begun.kind !== 'send') throw new Error(begun.kind);
  return begun;
};
/** Brings a placing command into a state, and says its key. */
const rowIn = async (context: string, state: string, publisher: 'ledger' | 'capture', subject: string) => {
  const command = inside(context, place(), { publisher });
  const begun = await send(command);
  if (state === 'applied') await write.settle(begun.id, begun.fence, answer(201, { id: subject }));
  if (state === 'unknown') await write.settle(begun.id, begun.fence, { kind: 'lost', why: 'reset' });
  if (state === 'rejected') await write.settle(begun.id, begun.fence, answer(409));
  if (state === 'expired') await store.db('banyan.ledger').where({ id: begun.id }).delete();
  if (state === 'parked') await write.settle(begun.id, begun.fence, answer(201, {}));
  if (state === 'expired') {
    const { rows } = (await store.db.raw(
      `insert into banyan.ledger (id, context, route, event_types, idempotency_key, key_supplied, scope, request_hash, method, target, state, upstream, publisher, epoch, owner, settle_ms, deadline_ms, settle_after, deadline)
       values (banyan.uuid7(), ?, 'POST /api/orders', '{order.placed.v1}', ?, true, 's', 'h', 'POST', '/api/orders', 'intent', 'legacy', ?, 1, banyan.uuid7(), 1, 1, now(), now()) returning id`,
      [context, command.key!, publisher],
    )) as { rows: { id: string }[] };
    await store.db('banyan.ledger').where({ id: rows[0]!.id }).update({ state: 'expired' });
    return { id: rows[0]!.id, fence: '1', key: command.key!, command };
  }
  return { ...begun, key: command.key!, command };
};

describe('a captured change', () => {
  it.each([
    ['ledger', 'sent', 'correlated', 'sent', 0],
    ['ledger', 'applied', 'correlated', 'applied', 1],
    ['ledger', 'unknown', 'correlated', 'applied', 1],
    ['ledger', 'rejected', 'correlated', 'applied', 1],
    ['ledger', 'expired', 'correlated', 'applied', 1],
    ['ledger', 'parked', 'correlated', 'parked', 0],
    ['capture', 'sent', 'published', 'sent', 1],
    ['capture', 'applied', 'published', 'done', 1],
    ['capture', 'unknown', 'published', 'done', 1],
    ['capture', 'rejected', 'published', 'done', 1],
    ['capture', 'expired', 'published', 'done', 1],
  ] as const)('under publisher %s meets its row in state %s: %s, then %s, with %d fact', async (publisher, state, said, after, facts) => {
    const context = await fresh();
    const subject = randomUUID();
    const row = await rowIn(context, state, publisher, subject);
    const change = { context, publisher, subject, key: row.key, change: randomUUID() };
    expect(await store.observe(change)).toBe(said);
    expect(await store.row(row.id)).toMatchObject({ state: after, evidence: [{ type: 'order.placed.v1', subject }] });
    expect(await store.facts(subject)).toHaveLength(facts);
    // the same change again, and the same row for another change of the type
    expect(await store.observe(change)).toBe('skipped');
    if (publisher === 'capture') expect(await store.row(row.id)).toMatchObject({ fact_id: expect.any(String) });
    expect(await store.facts(subject)).toHaveLength(facts);
  });

  it('that came first is what a lost answer is settled by', async () => {
    for (const outcome of [{ kind: 'lost', why: 'reset' } as const, answer(500), answer(409)]) {
      const context = await fresh();
      const subject = randomUUID();
      const row = await rowIn(context, 'sent', 'ledger', subject);
      expect(await store.observe({ context, subject, key: row.key, data: { n: 1 } })).toBe('correlated');
      expect(await write.settle(row.id, row.fence, outcome)).toEqual({ kind: 'settled', state: 'applied' });
      expect((await store.facts(subject)).map((fact) => fact.data)).toEqual([{ n: 1 }]);
    }
  });

  it('that came first leaves a known answer its own fact, once', async () => {
    const context = await fresh();
    const subject = randomUUID();
    const row = await rowIn(context, 'sent', 'ledger', subject);
    await store.observe({ context, subject, key: row.key });
    await write.settle(row.id, row.fence, answer(201, { id: subject }));
    expect((await store.facts(subject)).map((fact) => fact.data.id)).toEqual([subject]);
  });

  it('settles the row of a gateway that died', async () => {
    const context = await fresh();
    const subject = randomUUID();
    const row = await rowIn(context, 'sent', 'ledger', subject);
    await store.observe({ context, subject, key: row.key });
    await store.db('banyan.ledger').where({ id: row.id }).update({ deadline: 'epoch' });
    const { rows } = (await store.db.raw('select * from banyan.ledger_recover(5000, 100)')) as { rows: unknown[] };
    expect(rows).toContainEqual({ id: row.id, state: 'applied' });
    expect(await store.facts(subject)).toHaveLength(1);
  });

  it('without a key meets the oldest row of its subject and type, each row once', async () => {
    const context = await fresh();
    const subject = randomUUID();
    const type = 'order.cancelled.v1';
    const ids: string[] = [];
    for (let i = 0; i < 2; i += 1) {
      const begun = await send(inside(context, cancel(subject)));
      await write.settle(begun.id, begun.fence, answer(200));
      ids.push(begun.id);
    }
    expect(await store.observe({ context, subject, type })).toBe('correlated');
    expect((await store.row(ids[0]!)).evidence).toHaveLength(1);
    expect((await store.row(ids[1]!)).evidence).toHaveLength(0);
    expect(await store.observe({ context, subject, type })).toBe('correlated');
    expect(await store.facts(subject)).toHaveLength(2);
    expect(await store.observe({ context, subject, type })).toBe('published');
    expect(await store.facts(subject)).toHaveLength(3);
  });

  it('is not explained by a command that legacy refused, unless it carries its key', async () => {
    const context = await fresh();
    const subject = randomUUID();
    const begun = await send(inside(context, cancel(subject)));
    await write.settle(begun.id, begun.fence, answer(409));
    expect(await store.observe({ context, subject, type: 'order.cancelled.v1' })).toBe('published');
    expect((await store.row(begun.id)).state).toBe('rejected');
  });

  it('waits while a command that began before is open, but not for those that began later', async () => {
    const context = await fresh();
    const open = await rowIn(context, 'sent', 'ledger', '');
    const change = { context, subject: randomUUID(), change: randomUUID() };
    expect(await store.observe(change)).toBe('wait');
    await rowIn(context, 'unknown', 'ledger', '');
    expect(await store.observe(change)).toBe('wait');
    await write.settle(open.id, open.fence, answer(409));
    expect(await store.observe(change)).toBe('published');
    expect(await store.observe({ context, subject: randomUUID() })).toBe('wait');
  });

  it('around the gateway is published each time, although the legacy row keeps the key of its first command', async () => {
    const context = await fresh();
    const subject = randomUUID();
    const row = await rowIn(context, 'applied', 'ledger', subject);
    expect(await store.observe({ context, subject, key: row.key })).toBe('correlated');
    for (let i = 0; i < 3; i += 1)
      expect(await store.observe({ context, subject, type: 'order.changed.v1', key: row.key })).toBe('published');
    expect((await store.facts(subject)).map((fact) => fact.sequence)).toEqual(['1', '2', '3', '4']);
  });

  it('meets the fact of a row that is forgotten', async () => {
    const context = await fresh();
    const subject = randomUUID();
    const row = await rowIn(context, 'applied', 'ledger', subject);
    await store.db('banyan.ledger').where({ id: row.id }).delete();
    expect(await store.observe({ context, subject, key: row.key })).toBe('correlated');
    expect(await store.observe({ context, subject, key: row.key })).toBe('published');
  });

  it('never belongs to what the extracted side executed', async () => {
    const context = await fresh();
    await store.db('banyan.context').where({ name: context }).update({ owner: 'extracted' });
    const command = inside(context, place({ upstream: 'extracted' }));
    const begun = await send(command);
    const subject = randomUUID();
    expect(await store.observe({ context, subject, key: command.key })).toBe('published');
    expect((await store.row(begun.id)).evidence).toEqual([]);
  });

  it('that comes while the terminal commit is open is decided after it: no fact twice, none lost', async () => {
    for (let i = 0; i < 40; i += 1) {
      const context = await fresh();
      const publisher = i % 2 ? 'ledger' : 'capture';
      const subject = randomUUID();
      const row = await rowIn(context, 'sent', publisher, subject);
      const change = { context, publisher, subject, key: i % 4 < 2 ? row.key : null, change: randomUUID() };
      const [, said] = await Promise.all([write.settle(row.id, row.fence, answer(201, { id: subject })), store.observe(change)]);
      if (said === 'wait') expect(await store.observe(change)).toBe(publisher === 'ledger' ? 'correlated' : 'published');
      expect(await store.facts(subject)).toHaveLength(1);
    }
  });

  it('is held while the backlog is nearly full', async () => {
    const context = await fresh();
    const change = { context, subject: randomUUID(), change: randomUUID() };
    await store.db('banyan.pressure').update({ capture_paused: true, at: store.db.fn.now() });
    expect(await store.observe(change)).toBe('wait');
    await store.db('banyan.pressure').update({ capture_paused: false });
    expect(await store.observe(change)).toBe('published');
  });

  it('after a compensation speaks for itself', async () => {
    const context = await fresh();
    const writes = { ...placing, context, route: 'PUT /api/notes/:id', resolve: null };
    const command = place({ writes, method: 'PUT', target: '/api/notes/nx', body: Buffer.from('{"text":"a"}') });
    const begun = await send(command);
    await write.settle(begun.id, begun.fence, answer(409));
    expect(await store.observe({ context, type: 'note.set.v1', subject: 'nx', key: command.key })).toBe('published');
    expect((await store.facts('nx')).map((fact) => fact.phase)).toEqual(['tentative', 'compensated', null]);
  });
});

describe('a snapshot row', () => {
  it('is published once, and never over facts or under an open command', async () => {
    const context = await fresh();
    const subject = randomUUID();
    const row = { context, kind: 'snapshot', type: 'order.imported.v1', subject };
    const open = await rowIn(context, 'sent', 'ledger', '');
    expect(await store.observe({ ...row, change: 'one' })).toBe('wait');
    await write.settle(open.id, open.fence, answer(409));
    expect(await store.observe({ ...row, change: 'one' })).toBe('published');
    expect(await store.observe({ ...row, change: 'two' })).toBe('skipped');
    expect((await store.facts(subject)).map((fact) => fact.type)).toEqual(['order.imported.v1']);
  });
});

describe('a snapshot row of a subject that only commands have spoken of', () => {
  it('is still published after a cancellation, and not after a placing', async () => {
    const context = await fresh();
    const [old, young] = [randomUUID(), randomUUID()];
    const cancelled = inside(context, cancel(old), { route: 'POST /api/orders/:id/cancel' });
    const begun = await send(cancelled);
    await write.settle(begun.id, begun.fence, answer(200, { id: old }));
    await rowIn(context, 'applied', 'ledger', young);
    const row = { context, kind: 'snapshot', type: 'order.imported.v1' };
    expect(await store.observe({ ...row, subject: old, change: 'old' })).toBe('published');
    expect(await store.observe({ ...row, subject: young, change: 'young' })).toBe('skipped');
    expect((await store.facts(old)).map((fact) => fact.type)).toEqual(['order.cancelled.v1', 'order.imported.v1']);
  });
});

describe('a repeat of a command that only evidence settled', () => {
  it('gets the answer that resolve.body picks, asked for once', async () => {
    const context = await fresh();
    const subject = randomUUID();
    const { key, command } = await rowIn(context, 'unknown', 'ledger', subject);
    expect(await store.observe({ context, type: 'order.placed.v1', subject, key })).toBe('correlated');
    const asked: string[] = [];
    const recalling = await store.member({
      ask: async (_context, upstream, path) => {
        asked.push(`${upstream} ${path}`);
        return { status: 200, body: Buffer.from(JSON.stringify([{ id: subject, total: 25.0 }])) };
      },
    });
    for (let i = 0; i < 2; i++) {
      const again = await recalling.begin(command);
      expect(again).toMatchObject({ kind: 'replay', status: 201 });
      if (again.kind === 'replay') expect(JSON.parse(again.body.toString())).toEqual({ id: subject, total: 25 });
    }
    expect(asked).toEqual([`legacy /api/orders?ref=${key}`]);
    const silent = await store.member();
    const lost = await rowIn(context, 'unknown', 'ledger', randomUUID());
    await store.observe({ context, type: 'order.placed.v1', subject: randomUUID(), key: lost.key });
    await expect(silent.begin(lost.command)).rejects.toMatchObject({ code: 'answer-lost' });
  });
});

describe('bad input', () => {
  it.each([{ publisher: 'nobody' }, { kind: 'rumour' }, { context: 'none' }, { data: [1] }, { subject: '' }])(
    'is refused: %j',
    async (over) => {
      await expect(store.observe(over)).rejects.toThrow(/observe_change|append_fact|context none is not known/);
    },
  );
});
