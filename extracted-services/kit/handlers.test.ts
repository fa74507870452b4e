import type { Envelope } from '@banyan/contracts/envelope.ts';
import { describe, expect, it } from '@jest/globals';
import { handlersFor, project, react } from './handlers.ts';

const fact = (over: Partial<Envelope> = {}): Envelope => ({
  specversion: '1.0',
  id: '1',
  source: '/banyan/order/extracted',
  type: 'order.placed.v1',
  subject: '7',
  time: '2026-01-01T00:00:00.000Z',
  datacontenttype: 'application/json',
  data: {},
  partitionkey: '7',
  sequence: '000000000000000001',
  epoch: 1,
  origin: 'extracted',
  ...over,
});
const apply = async () => undefined;
const copy = project({ types: ['order.placed.v1'], apply });
const mail = react({ types: ['order.placed.v1'], apply });
const kinds = (envelope: Envelope, replay = false, own?: string) =>
  handlersFor([copy, mail], envelope, { own, replay }).map((handler) => handler.kind);

describe('who gets a fact', () => {
  it('everybody, when the extracted side did it', () => expect(kinds(fact())).toEqual(['project', 'react']));
  it('only projections, when legacy did it', () =>
    expect(kinds(fact({ origin: 'legacy', source: '/banyan/order/legacy' }))).toEqual(['project']));
  it('only projections, in a replay', () => expect(kinds(fact(), true)).toEqual(['project']));
  it.each(['tentative', 'compensated'] as const)('nobody, when it is %s', (phase) => expect(kinds(fact({ phase }))).toEqual([]));
  it('everybody, when it is confirmed', () => expect(kinds(fact({ phase: 'confirmed' }))).toEqual(['project', 'react']));
  it('nobody, when the service itself published it', () => expect(kinds(fact(), false, '/banyan/order/extracted')).toEqual([]));
  it('its projections, in a replay of its own facts', () => expect(kinds(fact(), true, '/banyan/order/extracted')).toEqual(['project']));
  it('nobody, when the type is of no interest', () => expect(kinds(fact({ type: 'order.deleted.v1' }))).toEqual([]));
});
