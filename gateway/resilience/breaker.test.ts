import { AppError } from '@banyan/contracts/errors.ts';
import { describe, expect, it } from '@jest/globals';
import { createBreaker } from './breaker.ts';

const options = { errorThresholdPercentage: 50, volumeThreshold: 4, resetTimeoutMs: 60_000, capacity: 2 };
const answered = (status: number) => async () => status;
const failed = (status: number) => status >= 500;

describe('createBreaker', () => {
  it('opens on answers that failed, which still pass, and then refuses without sending', async () => {
    const breaker = createBreaker('order', options);
    const states: string[] = [];
    breaker.onState((state) => states.push(state));
    for (let i = 0; i < 4; i++) expect(await breaker.run(answered(500), failed)).toBe(500);
    expect(breaker.state).toBe('open');
    expect(states).toEqual(['open']);
    let sent = false;
    await expect(
      breaker.run(async () => {
        sent = true;
        return 200;
      }, failed),
    ).rejects.toMatchObject({ code: 'breaker-open', sent: 'no', retryAfterSeconds: 60 });
    expect(sent).toBe(false);
    breaker.stop();
  });
  it('does not count clients that left, nor their own errors', async () => {
    const breaker = createBreaker('order', options);
    for (let i = 0; i < 8; i++) {
      await breaker.run(() => Promise.reject(new AppError('client-left', 'gone')), failed).catch(() => undefined);
      await breaker.run(answered(404), failed);
    }
    expect(breaker.state).toBe('closed');
    breaker.stop();
  });
  it('refuses beyond its capacity', async () => {
    const breaker = createBreaker('order', options);
    let release = (_: number): void => undefined;
    const held = new Promise<number>((resolve) => {
      release = resolve;
    });
    const running = [breaker.run(() => held, failed), breaker.run(() => held, failed)];
    await expect(breaker.run(answered(200), failed)).rejects.toMatchObject({ code: 'breaker-open' });
    release(200);
    expect(await Promise.all(running)).toEqual([200, 200]);
    breaker.stop();
  });
});
