import { describe, expect, it } from '@jest/globals';
import { formatTable } from './output.ts';

const HEAD = ['CONTEXT', 'KILLED', 'BY'];
const ROWS = [
  ['order', 'killed', 'ann'],
  ['inventory', '-', ''],
];

describe('formatTable', () => {
  it('pads to the widest cell and leaves nothing at the end of a line', () => {
    expect(formatTable(HEAD, ROWS)).toBe('CONTEXT    KILLED  BY\norder      killed  ann\ninventory  -');
  });

  it('has the same columns in colour, and colours words, never a part of one', () => {
    const colored = formatTable(HEAD, [...ROWS, ['killed-off', '-', 'bo']], true);
    expect(colored).toContain('\x1b[31mkilled\x1b[0m  ann');
    expect(colored).not.toContain('\x1b[31mkilled\x1b[0m-off');
    expect(colored.replaceAll(/\x1b\[\d+m/g, '')).toBe(formatTable(HEAD, [...ROWS, ['killed-off', '-', 'bo']]));
  });

  it('lets no text of others move the cursor or paint', () => {
    expect(formatTable(['A'], [['\x1b[31mred\nnext']])).toBe('A\n [31mred next');
  });
});
