import type { Envelope } from '@banyan/contracts/envelope.ts';
import { expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createBatches } from './batches.ts';
import { type Handler, project, react } from './handlers.ts';

const SETS = [['a'], ['a', 'b'], ['b', 'c'], ['single'], ['a', 'single']] as const;

it('each handler sees a key in its order, and a fact after the handlers before it and after all earlier facts of its key', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.nat(3), fc.constantFrom(...SETS)), { maxLength: 40 }), async (facts) => {
      const seen: string[] = [];
      const of = (name: string) => ({
        types: [],
        applyAll: async (_trx: unknown, all: readonly Envelope[]) => void seen.push(...all.map(({ id }) => `${name}:${id}`)),
      });
      const handlers: Record<string, Handler> = {
        a: project(of('a')),
        b: react(of('b')),
        c: project(of('c')),
        single: project({ types: [], apply: async (_trx, { id }) => void seen.push(`single:${id}`) }),
      };
      const batches = createBatches(undefined as never, Object.values(handlers));
      for (const [index, [key, names]] of facts.entries())
        await batches.add(
          names.map((name) => handlers[name]!),
          String(key),
          { id: String(index) } as Envelope,
        );
      await batches.flush();
      expect([...seen].sort()).toEqual(facts.flatMap(([, names], index) => names.map((name) => `${name}:${index}`)).sort());
      const place = (name: string, index: number): number => seen.indexOf(`${name}:${index}`);
      for (const [index, [key, names]] of facts.entries()) {
        const places = names.map((name) => place(name, index));
        expect(places).toEqual([...places].sort((x, y) => x - y));
        for (const [later, [other, theirs]] of facts.entries()) {
          if (later <= index || other !== key) continue;
          // the same handlers may take a key's facts together, one handler after the other
          for (const name of names) if (theirs === names) expect(place(name, later)).toBeGreaterThan(place(name, index));
          if (theirs !== names) expect(Math.min(...theirs.map((name) => place(name, later)))).toBeGreaterThan(Math.max(...places));
        }
      }
    }),
  );
});
