import { expect, it } from '@jest/globals';
import { mayShip, orderIn, SHIPMENT_STATES } from './domain.ts';

it.each([
  [{ orderId: '7' }, '7'],
  [{ orderId: 7 }, null],
  [{ orderId: '' }, null],
  [{ orderId: 'a\0b' }, null],
  [{ orderId: 'x'.repeat(129) }, null],
  [{}, null],
  [null, null],
])('%j is about order %j', (data, order) => expect(orderIn(data)).toBe(order));

it('hands over one parcel an order', () => {
  expect(mayShip(null)).toEqual({ outcome: 'done' });
  for (const state of SHIPMENT_STATES) expect(mayShip(state)).toMatchObject({ outcome: 'refused', why: expect.stringContaining('parcel') });
});
