import { describe, expect, it } from '@jest/globals';
import { createFailpoints, FAILPOINTS } from './failpoints.ts';

describe('failpoints', () => {
  it('do nothing unless they are asked for', () => {
    for (const spec of [undefined, '', ' ']) {
      const none = createFailpoints(
        spec,
        () => 0,
        () => {
          throw new Error('no');
        },
      );
      for (const name of FAILPOINTS) none.hit(name);
    }
  });

  it('kill, stop or throw where they stand, as often as asked', () => {
    const signals: string[] = [];
    let dice = 0.15;
    const points = createFailpoints(
      'put-after:kill:0.2, mark-before:error:0.1,presend-after:stop',
      () => dice,
      (name) => signals.push(name),
    );
    points.hit('put-after');
    points.hit('presend-after');
    points.hit('mark-before');
    points.hit('put-before');
    expect(signals).toEqual(['SIGKILL', 'SIGSTOP']);
    dice = 0.05;
    expect(() => points.hit('mark-before')).toThrow('failpoint mark-before');
  });

  it.each([
    ['nowhere:kill:1', 'one of presend-before'],
    ['put-after:explode:1', 'put-after:kill|stop|error:PROBABILITY'],
    ['put-after:kill:2', 'a probability from 0 to 1'],
    ['put-after:kill:', 'a probability from 0 to 1'],
    ['request-sent:error:1', 'request-sent:kill|stop:PROBABILITY'],
  ])('refuse %s', (spec, expected) => {
    expect(() => createFailpoints(spec)).toThrow(expected);
  });
});
