import { LEDGER_STATES, type LedgerState } from '@banyan/contracts/vocabulary.ts';
import { describe, expect, it } from '@jest/globals';
import { LEDGER_EVENTS, LedgerMoveError, MOVES, move, movesAsRows } from './ledger-moves.ts';

describe('ledger moves', () => {
  it('reach every state from intent', () => {
    const reached = new Set<LedgerState>(['intent']);
    const queue: LedgerState[] = ['intent'];
    for (let from = queue.pop(); from !== undefined; from = queue.pop())
      for (const to of Object.values(MOVES[from]))
        if (!reached.has(to)) {
          reached.add(to);
          queue.push(to);
        }
    expect([...reached].sort()).toEqual([...LEDGER_STATES].sort());
  });

  it('use every event, and end only in done and compensated', () => {
    expect(new Set(movesAsRows().map((row) => row.event))).toEqual(new Set(LEDGER_EVENTS));
    expect(LEDGER_STATES.filter((state) => Object.keys(MOVES[state]).length === 0).sort()).toEqual(['compensated', 'done']);
  });

  it('lead from unknown to compensation only through an answer', () => {
    expect(Object.values(MOVES.unknown)).not.toContain('compensating');
  });

  it('refuse what is not in the table', () => {
    expect(move('sent', 'ok')).toBe('applied');
    expect(() => move('done', 'ok')).toThrow(LedgerMoveError);
    expect(() => move('unknown', 'tentative-out')).toThrow('a ledger entry in state unknown knows no event tentative-out');
  });
});
