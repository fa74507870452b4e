import type { Envelope } from '@banyan/contracts/envelope.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { ProductState } from '@banyan/contracts/events/inventory.ts';
import type { AggregateChange, AggregateRows, Finding, LegacyWrite } from '../ports.ts';
import { toBerlin } from './berlin-time.ts';
import { integerOf, textOf, wordOf } from './columns.ts';
import { toCents, toDecimal } from './money.ts';

const ACTIVE = { Y: true, N: false } as const;
/** The shop sells in one currency and has no column for it. */
const CURRENCY = 'EUR';

/** Rows of `t_article` and `t_stock` as a product, or null without the first; no stock row means none on hand. */
export const toProduct = (rows: AggregateRows): ProductState | null => {
  const article = rows.t_article?.[0];
  if (!article) return null;
  const stock = rows.t_stock?.[0];
  return {
    id: integerOf('t_article', article, 'art_no'),
    name: textOf('t_article', article, 'art_nm'),
    price: toDecimal(textOf('t_article', article, 'unit_amt_ct')),
    currency: CURRENCY,
    stock: stock ? integerOf('t_stock', stock, 'qty_on_hand') : 0,
    active: wordOf('t_article', 'actv_flg', textOf('t_article', article, 'actv_flg'), ACTIVE),
  };
};

/** `inventory.imported.v1` of existing rows. */
export const importedProduct = (rows: AggregateRows): Finding | null => {
  const product = toProduct(rows);
  return product && { kind: 'snapshot', type: 'inventory.imported.v1', data: product, key: null };
};

/** What one transaction did to a product: its whole new state, or that it is gone. */
export const productFindings = ({ before, after }: AggregateChange): readonly Finding[] => {
  const [old, now] = [toProduct(before), toProduct(after)];
  if (!now) return old ? [{ kind: 'change', type: 'inventory.deleted.v1', data: { id: old.id }, key: null }] : [];
  if (JSON.stringify(old) === JSON.stringify(now)) return [];
  const data = old ? { ...now, stockDelta: now.stock - old.stock } : now;
  return [{ kind: 'change', type: 'inventory.changed.v1', data, key: null }];
};

/** Legacy writes for a fact of the extracted inventory service. */
export const productWrites = (fact: Envelope, current: AggregateRows): readonly LegacyWrite[] => {
  const data = fact.data as ProductState;
  if (!/^\d{1,10}$/.test(String(data.id)))
    throw new AppError('unprocessable', `product id ${JSON.stringify(data.id)} is no article number`);
  const key = { art_no: String(data.id) };
  switch (fact.type) {
    case 'inventory.changed.v1':
    case 'inventory.imported.v1': {
      if (data.currency !== CURRENCY)
        throw new AppError('unprocessable', `${fact.type}: the legacy tables hold ${CURRENCY} only, not ${data.currency}`);
      const set = { art_nm: data.name, unit_amt_ct: toCents(data.price), actv_flg: data.active ? 'Y' : 'N', upd_ts: toBerlin(fact.time) };
      return [
        { kind: 'upsert', table: 't_article', key, set },
        { kind: 'upsert', table: 't_stock', key, set: { qty_on_hand: String(data.stock) } },
      ];
    }
    case 'inventory.deleted.v1':
      return [
        ...(current.t_stock ?? []).map((): LegacyWrite => ({ kind: 'delete', table: 't_stock', key })),
        { kind: 'delete', table: 't_article', key },
      ];
    default:
      throw new AppError('unprocessable', `${fact.type} has no translation into the legacy tables`);
  }
};
