import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
import { LEDGER_STATES } from '../../contracts/vocabulary.ts';
import { movesAsRows } from '../../gateway/core/ledger-moves.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';

let store: FreshDatabase;
let db: Knex;

beforeAll(async () => {
  store = await freshDatabase('store');
  db = knex({ client: 'pg', connection: store.url, pool: { min: 0, max: 4 } });
});
afterAll(async () => {
  await db.destroy();
  await store.drop();
});

describe('the ledger in SQL', () => {
  it('knows the same moves as the code', async () => {
    const rows = await db('banyan.ledger_moves').select('from_state as from', 'event', 'to_state as to');
    const text = (row: { from: string; event: string; to: string }) => `${row.from} ${row.event} ${row.to}`;
    expect(rows.map(text).sort()).toEqual(movesAsRows().map(text).sort());
  });

  it('refuses every other change of state, and every other beginning', async () => {
    const legal = new Set(movesAsRows().map(({ from, to }) => `${from} ${to}`));
    const base = {
      context: 'order',
      route: 'POST /x',
      event_types: [],
      idempotency_key: 'k',
      key_supplied: true,
      scope: '',
      request_hash: 'h',
      method: 'POST',
      target: '/x',
      upstream: 'legacy',
      publisher: 'ledger',
      epoch: 1,
      owner: db.raw('banyan.uuid7()'),
      settle_ms: 1,
      deadline_ms: 1,
      settle_after: db.fn.now(),
      deadline: db.fn.now(),
    };
    const begins: string[] = [];
    for (const state of LEDGER_STATES)
      await db('banyan.ledger')
        .insert({ ...base, id: db.raw('banyan.uuid7()'), state })
        .then(
          () => begins.push(state),
          (error: { code: string }) => expect(error.code).toBe('BY409'),
        );
    expect(begins).toEqual(['intent', 'sent']);
    const allowed = new Set<string>();
    for (const from of LEDGER_STATES)
      for (const to of LEDGER_STATES) {
        if (from === to) continue;
        await db
          .transaction(async (trx) => {
            const [row] = await trx('banyan.ledger')
              .insert({ ...base, id: trx.raw('banyan.uuid7()'), state: 'sent' })
              .returning('id');
            // past the guard, to stand where no legal path is short
            await trx.raw('set local session_replication_role = replica');
            await trx('banyan.ledger').where({ id: row.id }).update({ state: from });
            await trx.raw('set local session_replication_role = origin');
            await trx('banyan.ledger').where({ id: row.id }).update({ state: to });
          })
          .then(
            () => allowed.add(`${from} ${to}`),
            (error: { code: string }) => expect(error.code).toBe('BY409'),
          );
      }
    expect([...allowed].sort()).toEqual([...legal].sort());
  });
});
