import { expect, it } from '@jest/globals';
import { mailAbout } from './domain.ts';

it.each([
  ['order.placed.v1', 'Your order 1006 has been received'],
  ['order.cancelled.v1', 'Your order 1006 has been cancelled'],
] as const)('%s: %s', (type, subject) => expect(mailAbout(type, '1006', 'user-1')).toEqual({ to: 'user-1', subject }));
