import { describe, expect, it } from '@jest/globals';
import type { LegacyRow } from '../ports.ts';
import { type Change, replay, steps } from './replay.ts';

const change = (id: number, xid: string, op: Change['op'], before: LegacyRow | null, after: LegacyRow | null, table = 't'): Change => ({
  id: BigInt(id),
  xid,
  context: 'c',
  subject: '1',
  table,
  op,
  rowKey: String((after ?? before)?.id ?? ''),
  before,
  after,
});
const row = (id: string, v: string): LegacyRow => ({ id, v });
const keyOf = (_table: string, found: LegacyRow): string => String(found.id);

describe('steps', () => {
  it('puts a transaction that was overtaken on one row behind the one that overtook it', () => {
    // 20 wrote its own row first, then waited for 10 to commit row a
    const found = steps([
      change(7, '20', 'U', row('a', '1'), row('a', '2')),
      change(3, '20', 'I', null, row('b', '1')),
      change(5, '10', 'U', row('a', '0'), row('a', '1')),
    ]);
    expect(found.map(({ lastId, changes }) => [lastId, changes.map(({ id }) => id)])).toEqual([
      [5n, [5n]],
      [7n, [3n, 7n]],
    ]);
  });
  it('keeps every row of the snapshot apart, though one transaction wrote them', () => {
    expect(steps([change(1, '9', 'S', null, row('a', '1')), change(2, '9', 'S', null, row('a', '1'))]).map(({ kind }) => kind)).toEqual([
      'snapshot',
      'snapshot',
    ]);
  });
});

describe('replay', () => {
  it('gives the rows before and after each step, with rows that no change names taken from the live tables', () => {
    const pending = [
      change(1, '1', 'I', null, row('a', '1')),
      change(2, '2', 'U', row('a', '1'), row('a', '2')),
      change(3, '3', 'D', row('a', '2'), null),
      change(4, '4', 'I', null, row('a', '9')),
    ];
    const live = { t: [row('a', '9')], other: [row('z', '0')] };
    const other = [row('z', '0')];
    const seen = replay(live, keyOf, pending, steps(pending)).map(({ before, after }) => [
      before.t?.[0]?.v ?? null,
      after.t?.[0]?.v ?? null,
      after.other,
    ]);
    expect(seen).toEqual([
      [null, '1', other],
      ['1', '2', other],
      ['2', null, other],
      [null, '9', other],
    ]);
  });
  it('does not let a step see changes that are read but not told yet', () => {
    const pending = [change(1, '1', 'U', row('a', '0'), row('a', '1')), change(2, '2', 'U', row('a', '1'), row('a', '2'))];
    const [only] = replay({ t: [row('a', '2')] }, keyOf, pending, steps(pending).slice(0, 1));
    expect([only!.before, only!.after]).toEqual([{ t: [row('a', '0')] }, { t: [row('a', '1')] }]);
  });
  it('leaves the rows alone at a row of the snapshot', () => {
    const pending = [change(1, '1', 'S', null, row('a', 'old')), change(2, '2', 'U', row('a', '0'), row('a', '1'))];
    const [snapshot] = replay({ t: [row('a', '1')] }, keyOf, pending, steps(pending));
    expect([snapshot!.before, snapshot!.after]).toEqual([{ t: [row('a', '0')] }, { t: [row('a', '0')] }]);
  });
});
