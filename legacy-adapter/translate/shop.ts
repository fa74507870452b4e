import { AppError } from '@banyan/contracts/errors.ts';
import type { Aggregate, Translation } from '../ports.ts';
import { importedProduct, productFindings, productWrites, toProduct } from './inventory.ts';
import { importedOrder, orderFindings, orderWrites, toOrder, undoOrder } from './order.ts';

const aggregates: readonly Aggregate[] = [
  {
    context: 'order',
    root: { schema: 'shop', name: 't_order', link: 'ord_no' },
    parts: [{ schema: 'shop', name: 't_order_pos', link: 'ord_no' }],
    sequence: 'shop.seq_ord_no',
  },
  {
    context: 'inventory',
    root: { schema: 'shop', name: 't_article', link: 'art_no' },
    parts: [{ schema: 'shop', name: 't_stock', link: 'art_no' }],
  },
];

const words = {
  order: { findings: orderFindings, imported: importedOrder, state: toOrder, writes: orderWrites, undo: undoOrder },
  inventory: { findings: productFindings, imported: importedProduct, state: toProduct, writes: productWrites, undo: null },
} as const;

const of = (context: string): (typeof words)[keyof typeof words] => {
  if (!Object.hasOwn(words, context)) throw new AppError('not-found', `the legacy shop has no context ${context}`);
  return words[context as keyof typeof words];
};

/** The demo shop. The only home of its tables, columns and codes. */
export const shop: Translation = {
  aggregates,
  findings: (change) => of(change.context).findings(change),
  imported: (context, rows) => of(context).imported(rows),
  state: (context, rows) => of(context).state(rows),
  writes: (context, fact, current) => of(context).writes(fact, current),
  undo(context, rows, at) {
    const { undo } = of(context);
    if (undo === null) throw new AppError('unprocessable', `the legacy shop has no way to take back what was done in context ${context}`);
    return undo(rows, at);
  },
};
