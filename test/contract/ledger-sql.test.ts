import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import knex, { type Knex } from 'knex';
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
});
