import { afterEach, describe, expect, it } from '@jest/globals';
import { bucketOf } from '../../gateway/core/bucket.ts';
import { get, listenOn, openTwoSides, routeOf, type TwoSides } from '../harness/two-sides.ts';
import { until } from '../harness/wait.ts';

const open: { stop(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.stop();
});

type Evaluation = { value: unknown; reason?: string };

/** A provider as one writes it: the part of the SDK's interface that Banyan asks. */
const providerOf = (evaluate: (flag: string, key: string) => Evaluation | Promise<Evaluation>) => {
  const asked: string[] = [];
  const resolve = async (flag: string, _default: unknown, { targetingKey = '' }: { targetingKey?: string }) => {
    asked.push(`${flag} ${targetingKey}`);
    return evaluate(flag, targetingKey);
  };
  const provider = {
    metadata: { name: 'test' },
    resolveBooleanEvaluation: resolve,
    resolveNumberEvaluation: resolve,
    resolveObjectEvaluation: resolve,
    resolveStringEvaluation: resolve,
  };
  return { asked, provider: () => provider };
};

const start = async (
  provider: 'ofrep' | (() => object),
  order: Parameters<typeof openTwoSides>[0] = {},
  settings: Record<string, unknown> = {},
): Promise<TwoSides> => {
  const sides = await openTwoSides(
    { stage: 'canary', share: '0%', stickyKey: ['header:x-user-id'], openfeature: {}, ...order },
    { openfeature: { provider, timeout: '2s', ...settings } },
  );
  open.push(sides);
  return sides;
};
const ask = async ({ url }: TwoSides, user: string, method = 'GET') =>
  routeOf(await get(`${url}/api/orders/1`, { 'x-user-id': user }, method));

describe('a provider', () => {
  it('decides the side of a sticky key, is asked once for it, and only in canary', async () => {
    const { provider, asked } = providerOf((_flag, key) => ({ value: key === 'alice' ? 'extracted' : 'legacy' }));
    const sides = await start(provider);
    for (let n = 0; n < 3; n++) expect(await ask(sides, 'alice')).toEqual({ upstream: 'extracted', reason: 'TARGETING' });
    expect(await ask(sides, 'bob')).toEqual({ upstream: 'legacy', reason: 'TARGETING' });
    expect(await ask(sides, 'alice', 'POST')).toEqual({ upstream: 'legacy', reason: 'STAGE' });
    expect(asked).toEqual(['order alice', 'order bob']);
    const shadow = await start(provider, { stage: 'shadow', share: '0%' });
    expect(await ask(shadow, 'alice')).toEqual({ upstream: 'legacy', reason: 'STAGE' });
    expect(asked).toHaveLength(2);
  });

  it('decides the share, which buckets are held against', async () => {
    const { provider, asked } = providerOf(() => ({ value: 30 }));
    const sides = await start(provider, { openfeature: { flag: 'order-share', decides: 'share' } });
    for (let n = 0; n < 40; n++) {
      const upstream = bucketOf('order', `u${n}`) < 3_000 ? 'extracted' : 'legacy';
      expect(await ask(sides, `u${n}`)).toEqual({ upstream, reason: 'PROVIDER' });
    }
    expect(asked).toEqual(['order-share order']);
  });

  it('that is slow lets a client wait for the time-out only, and is heard afterwards', async () => {
    let answer: (evaluation: Evaluation) => void = () => undefined;
    const { provider } = providerOf(() => new Promise((resolve) => (answer = resolve)));
    const sides = await start(provider, {}, { timeout: '20ms' });
    const from = performance.now();
    expect(await ask(sides, 'alice')).toEqual({ upstream: 'legacy', reason: 'PROVIDER' });
    expect(performance.now() - from).toBeLessThan(2_000);
    answer({ value: 'extracted' });
    await until(async () => (await ask(sides, 'alice')).upstream === 'extracted', { describe: 'the late answer' });
  });

  it.each([
    ['throws', () => Promise.reject(new Error('down'))],
    ['says what is no side', () => ({ value: 'sideways' })],
    ['says what is no text', () => ({ value: 7 })],
    ['never answers', () => new Promise<Evaluation>(() => undefined)],
  ])('that %s means legacy, and no request fails', async (_how, evaluate) => {
    const sides = await start(providerOf(evaluate).provider, {}, { timeout: '20ms' });
    expect(await ask(sides, 'alice')).toEqual({ upstream: 'legacy', reason: 'PROVIDER' });
    expect(await ask(sides, 'alice')).toEqual({ upstream: 'legacy', reason: 'PROVIDER' });
  });

  it('that fails later leaves what it said last', async () => {
    let failing = false;
    const { provider, asked } = providerOf(() => (failing ? Promise.reject(new Error('down')) : { value: 'extracted' }));
    const sides = await start(provider, {}, { cache: '1ms' });
    expect((await ask(sides, 'alice')).upstream).toBe('extracted');
    failing = true;
    const before = asked.length;
    await until(
      async () => {
        expect(await ask(sides, 'alice')).toEqual({ upstream: 'extracted', reason: 'TARGETING' });
        return asked.length > before + 3;
      },
      { describe: 'failing evaluations' },
    );
  });

  it('that cannot be made stops the start, with the reason', async () => {
    const failing = () => {
      throw new Error('no such account');
    };
    await expect(start(failing)).rejects.toMatchObject({ code: 'not-configured', message: 'openfeature.provider: no such account' });
    await expect(start(() => ({}))).rejects.toMatchObject({ code: 'not-configured' });
  });

  it('yields to overrides', async () => {
    const { provider, asked } = providerOf(() => ({ value: 'extracted' }));
    const sides = await start(provider, { overrides: [{ to: 'legacy', when: 'header:x-user-id=eve' }] });
    expect(await ask(sides, 'eve')).toEqual({ upstream: 'legacy', reason: 'OVERRIDE' });
    expect(asked).toEqual([]);
  });

  it('may be an OFREP service, named in the file', async () => {
    const bodies: string[] = [];
    const service = await listenOn((req, res) => {
      let text = '';
      req.on('data', (chunk) => (text += chunk));
      req.on('end', () => {
        bodies.push(`${req.url} ${req.headers.authorization} ${text}`);
        const value = text.includes('"alice"') ? 'extracted' : 'legacy';
        res
          .setHeader('content-type', 'application/json')
          .end(JSON.stringify({ key: 'order', value, variant: value, reason: 'TARGETING_MATCH' }));
      });
    });
    open.push(service);
    const sides = await start('ofrep', {}, { url: service.url, token: 'tell-nobody' });
    expect(await ask(sides, 'alice')).toEqual({ upstream: 'extracted', reason: 'TARGETING' });
    expect(await ask(sides, 'bob')).toEqual({ upstream: 'legacy', reason: 'TARGETING' });
    expect(bodies[0]).toBe('/ofrep/v1/evaluate/flags/order Bearer tell-nobody {"context":{"targetingKey":"alice","context":"order"}}');
  });
});
