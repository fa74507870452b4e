import { OPERATIONS, STAGES } from '@banyan/contracts/vocabulary.ts';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type Circumstances, type ContextFlag, decide } from './decide.ts';

const flag = (over: Partial<ContextFlag> = {}): ContextFlag => ({
  name: 'order',
  group: null,
  stage: 'legacy',
  canaryShareBp: 0,
  killed: false,
  frozen: false,
  owner: 'legacy',
  epoch: 1,
  version: 1,
  ...over,
});
const at = (over: Partial<Circumstances> = {}): Circumstances => ({ operation: 'query', bucket: 0, pin: null, stale: false, ...over });

describe('decide', () => {
  it.each([
    ['legacy', 'query', 'legacy-only'],
    ['legacy', 'command', 'legacy-only'],
    ['shadow', 'query', 'legacy-with-shadow'],
    ['shadow', 'command', 'legacy-only'],
    ['canary', 'query', 'extracted-with-fallback'],
    ['canary', 'command', 'legacy-only'],
    ['cutover', 'query', 'extracted-with-fallback'],
    ['cutover', 'command', 'extracted-only'],
    ['retired', 'query', 'extracted-only'],
    ['retired', 'command', 'extracted-only'],
  ] as const)('%s %s -> %s', (stage, operation, kind) => {
    expect(decide(flag({ stage, canaryShareBp: 5000 }), at({ operation })).kind).toBe(kind);
  });
  it.each([
    ['legacy', 'command', 'legacy-only'],
    ['canary', 'query', 'legacy-only'],
    ['cutover', 'query', 'legacy-only'],
    ['cutover', 'command', 'unavailable'],
    ['retired', 'query', 'extracted-only'],
  ] as const)('killed at %s: %s -> %s', (stage, operation, kind) => {
    expect(decide(flag({ stage, canaryShareBp: 5000, killed: true }), at({ operation })).kind).toBe(kind);
  });
  it('keeps a client on the side that has its write, and everyone off a side that lags', () => {
    const canary = flag({ stage: 'canary', canaryShareBp: 10_000 });
    expect(decide(canary, at({ pin: 'legacy' })).reason).toBe('PINNED');
    expect(decide(canary, at({ stale: true })).reason).toBe('STALE');
  });
  it('caps queries of one route, never who owns its commands', () => {
    const cut = flag({ stage: 'cutover', owner: 'extracted' });
    expect(decide(cut, at({ maxStage: 'shadow' })).kind).toBe('legacy-with-shadow');
    expect(decide(cut, at({ maxStage: 'shadow', operation: 'command' })).kind).toBe('extracted-only');
  });
  it('holds commands, and only commands, while frozen', () => {
    fc.assert(
      fc.property(fc.constantFrom(...STAGES), fc.constantFrom(...OPERATIONS), (stage, operation) => {
        const kind = decide(flag({ stage, frozen: true }), at({ operation })).kind;
        return (kind === 'frozen') === (operation === 'command');
      }),
    );
  });
  it('never drops a bucket when the canary widens, and never lets a command leave its owner', () => {
    fc.assert(
      fc.property(fc.nat(9999), fc.nat(10_000), fc.nat(10_000), (bucket, a, b) => {
        const [narrow, wide] = a <= b ? [a, b] : [b, a];
        const on = (share: number) =>
          decide(flag({ stage: 'canary', canaryShareBp: share }), at({ bucket })).kind === 'extracted-with-fallback';
        const command = decide(flag({ stage: 'canary', canaryShareBp: wide }), at({ bucket, operation: 'command' })).kind;
        return (!on(narrow) || on(wide)) && command === 'legacy-only';
      }),
    );
  });

  it.each([
    ['legacy', 'extracted', 'extracted-with-fallback', 'OVERRIDE'],
    ['shadow', 'extracted', 'extracted-with-fallback', 'OVERRIDE'],
    ['canary', 'extracted', 'extracted-with-fallback', 'OVERRIDE'],
    ['canary', 'legacy', 'legacy-with-shadow', 'OVERRIDE'],
    ['legacy', 'legacy', 'legacy-only', 'OVERRIDE'],
    ['cutover', 'legacy', 'extracted-with-fallback', 'STAGE'],
    ['retired', 'legacy', 'extracted-only', 'STAGE'],
  ] as const)('an override at %s to %s: %s, %s', (stage, override, kind, reason) => {
    expect(decide(flag({ stage, canaryShareBp: 5000 }), at({ override, bucket: 5000 }))).toMatchObject({ kind, reason });
  });

  it('never overrides a command, a kill, a pin, a lag or the cap of a route', () => {
    const canary = flag({ stage: 'canary', canaryShareBp: 0 });
    const override = 'extracted' as const;
    expect(decide(canary, at({ override, operation: 'command' })).kind).toBe('legacy-only');
    expect(decide({ ...canary, killed: true }, at({ override })).reason).toBe('KILLED');
    expect(decide(canary, at({ override, pin: 'legacy' }))).toEqual({ kind: 'legacy-with-shadow', reason: 'PINNED' });
    expect(decide(canary, at({ override, stale: true }))).toEqual({ kind: 'legacy-only', reason: 'STALE' });
    expect(decide(canary, at({ override, maxStage: 'shadow' }))).toEqual({ kind: 'legacy-with-shadow', reason: 'STAGE' });
    expect(decide(canary, at({ override, maxStage: 'canary' })).reason).toBe('OVERRIDE');
  });

  it('hears a provider in canary alone, and after an override', () => {
    const provided = { extracted: true, reason: 'TARGETING' } as const;
    expect(decide(flag({ stage: 'canary' }), at({ provided, bucket: 9999 }))).toMatchObject({
      kind: 'extracted-with-fallback',
      reason: 'TARGETING',
    });
    expect(decide(flag({ stage: 'canary', canaryShareBp: 10_000 }), at({ provided: { extracted: false, reason: 'PROVIDER' } }))).toEqual({
      kind: 'legacy-with-shadow',
      reason: 'PROVIDER',
    });
    expect(decide(flag({ stage: 'canary' }), at({ provided, override: 'legacy' })).reason).toBe('OVERRIDE');
    for (const stage of ['legacy', 'shadow', 'cutover', 'retired'] as const)
      expect(decide(flag({ stage }), at({ provided })).reason).toBe('STAGE');
    expect(decide(flag({ stage: 'canary', killed: true }), at({ provided })).reason).toBe('KILLED');
  });
});
