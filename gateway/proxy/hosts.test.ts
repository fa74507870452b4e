import { AppError } from '@banyan/contracts/errors.ts';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type HostRecord, Hosts, isHostFault, newHost, type OutlierOptions } from './hosts.ts';

const OUTLIER: OutlierOptions = { consecutiveFailures: 3, ejection: 1_000, maxEjected: 5_000 };

/** Hosts `a`, `b`, …, a clock that only `pass` moves, and a die that rolls what it is told. */
const rig = (count: number, outlier: OutlierOptions | null = OUTLIER) => {
  let now = 0;
  let rolls: number[] = [];
  const told: string[] = [];
  const all = Array.from({ length: count }, (_, i) => ({ ...newHost(String.fromCharCode(97 + i)), pool: { open: 0 } }));
  const hosts = new Hosts(all, {
    outlier,
    now: () => now,
    random: () => rolls.shift() ?? 0,
    onEjection: (host, ms) => told.push(`${host.url} ${ms}`),
  });
  const fail = (host: HostRecord, times = 3): void => {
    for (let i = 0; i < times; i++) hosts.failed(host);
  };
  return {
    hosts,
    all: all as [HostRecord, HostRecord, HostRecord],
    told,
    fail,
    pass: (ms: number) => {
      now += ms;
    },
    roll: (...next: number[]) => {
      rolls = next;
      return hosts.pick().url;
    },
    load: (host: HostRecord, open: number) => {
      (host.pool as { open: number }).open = open;
    },
    /** Everything that many picks give. */
    picked: (): string => {
      const seen = new Set<string>();
      for (let first = 0; first < 1; first += 0.04)
        for (let second = 0; second < 1; second += 0.04) {
          rolls = [first, second];
          seen.add(hosts.pick().url);
        }
      return [...seen].sort().join('');
    },
  };
};

describe('choosing a host', () => {
  it('takes the less loaded of two different random ones, the first when they are equal', () => {
    const { all, roll, load } = rig(3);
    expect(roll(0, 0)).toBe('a');
    load(all[0], 1);
    expect(roll(0, 0)).toBe('b');
    load(all[1], 2);
    expect(roll(0.4, 0)).toBe('a');
    expect(roll(0.9, 0)).toBe('c');
  });

  it('gives every host its share when all are as fast', () => {
    const { picked } = rig(4);
    expect(picked()).toBe('abcd');
  });

  it('asks no die and no clock for one host', () => {
    const hosts = new Hosts([{ ...newHost('a'), pool: { open: 9 } }], {
      outlier: OUTLIER,
      now: () => {
        throw new Error('clock');
      },
      random: () => {
        throw new Error('die');
      },
    });
    expect(hosts.pick().url).toBe('a');
  });

  it('tries another, the least loaded, a usable one first, and ends when all were tried', () => {
    const { hosts, all, load } = rig(3);
    load(all[1], 2);
    expect(hosts.other([all[0]])?.url).toBe('c');
    hosts.setHealth('c', false);
    expect(hosts.other([all[0]])?.url).toBe('b');
    expect(hosts.other([all[0], all[1]])?.url).toBe('c');
    expect(hosts.other(all)).toBeNull();
  });

  it('never leaves a usable host aside for one that is not, whatever happens', () => {
    const event = fc.oneof(
      fc.record({ kind: fc.constant('failed' as const), host: fc.nat(5) }),
      fc.record({ kind: fc.constant('succeeded' as const), host: fc.nat(5) }),
      fc.record({ kind: fc.constant('health' as const), host: fc.nat(5), healthy: fc.boolean() }),
      fc.record({ kind: fc.constant('pass' as const), ms: fc.nat(3_000) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.array(event, { maxLength: 80 }), fc.nat(10_000), (count, events, maxEjected) => {
        const { hosts, all, pass, picked } = rig(count, { ...OUTLIER, maxEjected });
        for (const one of events) {
          if (one.kind === 'pass') pass(one.ms);
          else {
            const host = (all as HostRecord[])[one.host % count]!;
            if (one.kind === 'health') hosts.setHealth(host.url, one.healthy);
            else hosts[one.kind](host);
          }
        }
        const seen = picked();
        const usable = all.filter((host) => hosts.stateOf(host) === 'healthy').map(({ url }) => url);
        expect(seen).toBe((usable.length === 0 ? all.map(({ url }) => url) : usable).join(''));
        // ejection alone never takes the last one
        if (all.every(({ healthy }) => healthy)) expect(usable.length).toBeGreaterThan(0);
      }),
      { numRuns: 200 },
    );
  });
});

describe('ejection', () => {
  it('follows so many failures in a row, and a success in between forgives them', () => {
    const { hosts, all, fail, picked, told } = rig(3);
    fail(all[0], 2);
    hosts.succeeded(all[0]);
    fail(all[0], 2);
    expect(picked()).toBe('abc');
    fail(all[0], 1);
    expect(picked()).toBe('bc');
    expect(hosts.stateOf(all[0])).toBe('ejected');
    expect(told).toEqual(['a 1000']);
  });

  it('doubles each time up to ten times, and begins anew after the host held out as long', () => {
    const { all, fail, pass, picked, told } = rig(2);
    for (const ms of [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]) {
      fail(all[0]);
      expect(told.at(-1)).toBe(`a ${ms}`);
      pass(ms - 1);
      expect(picked()).toBe('b');
      pass(1);
      expect(picked()).toBe('ab');
      expect(told.at(-1)).toBe('a null');
    }
    pass(10_001);
    fail(all[0]);
    expect(told.at(-1)).toBe('a 1000');
  });

  it.each([
    [2, 5_000, 1],
    [3, 5_000, 1],
    [5, 5_000, 2],
    [3, 10_000, 2],
    [3, 100, 1],
    [3, 0, 0],
    [1, 10_000, 0],
  ])('of %i hosts at %i basis points takes %i at most', (count, maxEjected, most) => {
    const { all, fail, hosts } = rig(count, { ...OUTLIER, maxEjected });
    for (const host of all as HostRecord[]) fail(host, 10);
    expect(all.filter((host) => hosts.stateOf(host) === 'ejected')).toHaveLength(most);
  });

  it('takes the next failing host once there is room again', () => {
    const { all, fail, pass, picked } = rig(2);
    fail(all[0]);
    fail(all[1]);
    expect(picked()).toBe('b');
    pass(1_000);
    expect(picked()).toBe('ab');
    fail(all[1], 1);
    expect(picked()).toBe('a');
  });

  it('leaves the last healthy host alone', () => {
    const { hosts, all, fail, picked } = rig(3);
    hosts.setHealth('a', false);
    fail(all[1]);
    fail(all[2]);
    expect(picked()).toBe('c');
  });

  it('is off when it is not wanted', () => {
    const { all, fail, picked } = rig(2, null);
    fail(all[0], 100);
    expect(picked()).toBe('ab');
  });

  it('ends when checks find that the host was down and is back', () => {
    const { hosts, all, fail, picked } = rig(3);
    fail(all[0]);
    hosts.setHealth('a', false);
    expect(picked()).toBe('bc');
    hosts.setHealth('a', true);
    expect(picked()).toBe('abc');
  });
});

describe('active checks', () => {
  it('take hosts out, and nobody is left out when all are down', () => {
    const { hosts, picked } = rig(2);
    hosts.setHealth('a', false);
    expect(picked()).toBe('b');
    hosts.setHealth('b', false);
    expect(picked()).toBe('ab');
    hosts.setHealth('b', true);
    expect(picked()).toBe('b');
    hosts.setHealth('unknown', false);
    expect(picked()).toBe('b');
  });
});

it.each([
  ['upstream-unreachable', 'no', true],
  ['upstream-reset', 'maybe', true],
  ['upstream-protocol', 'yes', true],
  ['upstream-timeout', 'maybe', true],
  ['upstream-timeout', 'no', false],
  ['client-left', 'maybe', false],
  ['request-timeout', 'yes', false],
  ['bad-request', 'no', false],
] as const)('%s (sent: %s) speaks against the host: %s', (code, sent, fault) => {
  expect(isHostFault(new AppError(code, 'x', { sent }))).toBe(fault);
});
