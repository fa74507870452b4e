import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { createHealth, type HealthOptions, judge, UNCHECKED, type Vitals } from './health.ts';

const OPTIONS: HealthOptions = {
  path: '/healthz',
  interval: 1_000,
  timeout: 100,
  healthyAfter: 2,
  unhealthyAfter: 3,
  status: { from: 200, to: 299 },
};

/** What the host is taken for after each result; `+` good, `-` failed. */
const course = (results: string): string => {
  let vitals: Vitals = UNCHECKED;
  return [...results]
    .map((one) => {
      vitals = judge(vitals, one === '+' ? null : 'broken', OPTIONS);
      return vitals.healthy ? 'H' : 'u';
    })
    .join('');
};

describe('judging a host', () => {
  it.each([
    ['+++', 'HHH'],
    ['+--+---', 'HHHHHHu'],
    ['+---+-++', 'HHHuuuuH'],
    ['-+', 'uu'],
    ['-++', 'uuH'],
    ['+-+-+-+-', 'HHHHHHHH'],
    ['+---+-+-+-', 'HHHuuuuuuu'],
  ])('%s makes %s', (results, states) => {
    expect(course(results)).toBe(states);
  });
});

describe('checks', () => {
  beforeEach(() => void jest.useFakeTimers());
  afterEach(() => void jest.useRealTimers());

  const rig = () => {
    const answers = new Map<string, number | Error>([
      ['http://a', 200],
      ['http://b', 200],
    ]);
    const looks: string[] = [];
    const changes: string[] = [];
    const health = createHealth({
      urls: [...answers.keys()],
      tls: null,
      options: OPTIONS,
      random: () => 0.5,
      onChange: (url, healthy, why) => changes.push(`${url} ${healthy} ${why}`),
      look: (url) => {
        looks.push(url);
        const answer = answers.get(url)!;
        return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
      },
    });
    return { health, answers, looks, changes };
  };

  it('begin when started, follow the interval, and tell each change once', async () => {
    const { health, answers, looks, changes } = rig();
    await jest.advanceTimersByTimeAsync(5_000);
    expect(looks).toEqual([]);
    health.start();
    health.start();
    await jest.advanceTimersByTimeAsync(0);
    expect(looks).toEqual(['http://a', 'http://b']);
    answers.set('http://a', 503);
    answers.set('http://b', Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }));
    await jest.advanceTimersByTimeAsync(2_000);
    expect(changes).toEqual([]);
    await jest.advanceTimersByTimeAsync(3_000);
    expect(changes).toEqual(['http://a false /healthz answers 503', 'http://b false ECONNREFUSED']);
    answers.set('http://a', 204);
    await jest.advanceTimersByTimeAsync(2_000);
    expect(changes.slice(2)).toEqual(['http://a true null']);
    health.stop();
    const before = looks.length;
    await jest.advanceTimersByTimeAsync(5_000);
    expect(looks).toHaveLength(before);
  });

  it('tell a late listener what is known, and none that has gone', async () => {
    const { health, answers } = rig();
    answers.set('http://b', 500);
    health.start();
    await jest.advanceTimersByTimeAsync(0);
    const told: string[] = [];
    const leave = health.watch((url, healthy) => told.push(`${url} ${healthy}`));
    expect(told).toEqual(['http://a true', 'http://b false']);
    leave();
    answers.set('http://b', 200);
    await jest.advanceTimersByTimeAsync(3_000);
    expect(told).toHaveLength(2);
    expect(health.vitals.get('http://b')?.healthy).toBe(true);
    health.stop();
  });
});
