import { describe, expect, it } from '@jest/globals';
import { type Config, loadConfig } from './config.ts';
import type { ContextFlag } from './core/decide.ts';
import { refuseNarrowing } from './narrowing.ts';

const configOf = async (contexts: string): Promise<Config> => {
  const loaded = await loadConfig({ env: {}, text: `version: 1\nlegacy: { url: http://127.0.0.1:1 }\ncontexts:\n${contexts}` });
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.faults));
  return loaded.config;
};
const context = (name: string, match: string, more = ''): string =>
  `  ${name}: { match: [ ${match} ], else: legacy, extracted: { url: http://127.0.0.1:2 }${more} }\n`;

const ORDER = '{ path: /orders/**, methods: [ GET ] }, { path: /orders/:id, methods: [ POST ] }';
const BEFORE = context('order', ORDER) + context('stock', '{ path: /stock, methods: [ GET ] }');

const at =
  (stages: Readonly<Record<string, ContextFlag['stage']>>) =>
  (name: string): ContextFlag | undefined =>
    stages[name] && {
      name,
      group: null,
      stage: stages[name],
      canaryShareBp: 0,
      killed: false,
      frozen: false,
      owner: 'legacy',
      epoch: 1,
      version: 1,
    };
const verdict = async (after: string, stages: Readonly<Record<string, ContextFlag['stage']>>): Promise<string> => {
  try {
    refuseNarrowing(await configOf(BEFORE), await configOf(after), at(stages));
    return 'taken';
  } catch (error) {
    return (error as Error).message;
  }
};
const STOCK = context('stock', '{ path: /stock, methods: [ GET ] }');

describe('a reload', () => {
  it.each([
    ['the same', BEFORE],
    [
      'another name of a parameter',
      context('order', '{ path: /orders/**, methods: [ GET ] }, { path: /orders/:order, methods: [ POST ] }') + STOCK,
    ],
    ['a wider route', context('order', '{ path: /orders/**, methods: [ GET, POST ] }') + STOCK],
    ['a route of another context beside it', `${BEFORE}${context('user', '{ path: /users/:id, methods: [ GET ] }')}`],
    ['a wider route of another context, which is less specific', `${BEFORE}${context('rest', '{ path: /**, methods: [ GET ] }')}`],
    ['another context less', context('order', ORDER)],
  ])('with %s is taken', async (_, after) => {
    expect(await verdict(after, { order: 'cutover', stock: 'shadow' })).toBe('taken');
  });

  it.each([
    [
      'without the context',
      STOCK,
      'order (canary): GET /orders/**; order (canary): POST /orders/:id; order (canary): its extracted service',
    ],
    ['without a route', context('order', '{ path: /orders/**, methods: [ GET ] }') + STOCK, 'order (canary): POST /orders/:id'],
    ['with fewer depths', context('order', '{ path: /orders/:a, methods: [ GET, POST ] }') + STOCK, 'order (canary): GET /orders/**'],
    [
      'without a method',
      context('order', '{ path: /orders/**, methods: [ HEAD ] }, { path: /orders/:id, methods: [ POST ] }') + STOCK,
      'order (canary): GET /orders/**',
    ],
    [
      'with a route of another context in the middle',
      `${BEFORE}${context('vip', '{ path: /orders/vip, methods: [ GET, PUT ] }')}`,
      'order (canary): GET /orders/vip',
    ],
    ['without the service', `  order: { match: [ ${ORDER} ], else: legacy }\n${STOCK}`, 'order (canary): its extracted service'],
    ['with another group', context('order', ORDER, ', group: shop') + STOCK, 'order (canary): its group, by which clients are told apart'],
  ])('%s is refused in canary, and taken in shadow', async (_, after, lost) => {
    expect(await verdict(after, { order: 'canary', stock: 'legacy' })).toBe(`the reload would take away what is in use: ${lost}`);
    expect(await verdict(after, { order: 'shadow', stock: 'legacy' })).not.toContain('take away');
  });

  it('joins contexts to a group that stand at one stage, and no others', async () => {
    const joined = context('order', ORDER, ', group: shop') + context('stock', '{ path: /stock, methods: [ GET ] }', ', group: shop');
    expect(await verdict(joined, { order: 'shadow', stock: 'shadow' })).toBe('taken');
    expect(await verdict(joined, { order: 'shadow', stock: 'legacy' })).toBe(
      'the reload would join contexts that stand at different stages: group shop: order shadow, stock legacy',
    );
  });
});
