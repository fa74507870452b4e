import { expect, it } from '@jest/globals';
import { readKillFile } from './local-kill.ts';

it.each([
  ['', [{ context: '*', reason: '' }]],
  ['# in case of need\n\n', [{ context: '*', reason: '' }]],
  ['order', [{ context: 'order', reason: '' }]],
  [
    '  order   totals are wrong \n# more\ninventory\r\n',
    [
      { context: 'order', reason: 'totals are wrong' },
      { context: 'inventory', reason: '' },
    ],
  ],
  ['* everything is wrong', [{ context: '*', reason: 'everything is wrong' }]],
])('a kill file %j names what it says', (text, wishes) => {
  expect(readKillFile(text)).toEqual(wishes);
});
