import { expect, it } from '@jest/globals';
import { createGathered, type MetricsSnapshot } from './gathered.ts';
import { createMetrics } from './metrics.ts';

const metricsOf = (sources: Parameters<typeof createMetrics>[0]['sources'] = {}) =>
  createMetrics({ version: '1', nodeVersion: 'v24', sources });
const sample = {
  context: null,
  route: null,
  method: 'GET',
  upstream: 'legacy',
  reason: null,
  status: 200,
  durationMs: 2,
  tunnel: undefined,
} as const;
const numberIn = (text: string, name: string): number | undefined => {
  const line = text.split('\n').find((one) => one.startsWith(name));
  return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(' ')));
};

it('adds counters and histograms, never goes backwards, and forgets what only the dead measured', async () => {
  const own = metricsOf();
  own.configLoaded(3);
  const gathered = createGathered(own.registry);
  const worker = async (requests: number): Promise<MetricsSnapshot> => {
    const metrics = metricsOf({ tunnels: () => ({ legacy: 5, extracted: 0 }) });
    metrics.configLoaded(1);
    for (let i = 0; i < requests; i++) metrics.request(sample);
    return metrics.registry.getMetricsAsJSON();
  };
  gathered.note('a', await worker(2));
  gathered.note('b', await worker(3));
  gathered.note('a', await worker(4));
  const look = async (): Promise<(number | undefined)[]> => {
    const text = await gathered.metrics();
    return [
      'banyan_requests_total',
      'banyan_request_duration_seconds_count',
      'banyan_tunnels{upstream="legacy"}',
      'banyan_config_generation',
    ].map((name) => numberIn(text, name));
  };
  expect(await look()).toEqual([7, 7, 10, 3]);
  gathered.left('a');
  expect(await look()).toEqual([7, 7, 5, 3]);
  // many come and go, and leave one sum
  for (let i = 0; i < 20; i++) {
    gathered.note(`c${i}`, await worker(1));
    gathered.left(`c${i}`);
  }
  expect(await look()).toEqual([27, 27, 5, 3]);
  gathered.left('b');
  gathered.left('nobody');
  expect(await look()).toEqual([27, 27, undefined, 3]);
});
