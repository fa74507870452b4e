import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Metric, MetricObjectWithValues, MetricValue, Registry } from 'prom-client';
import type { JournalEntry, RequestMeter } from '../ports.ts';

/** Latencies of a proxy: 1 ms to 10 s. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const;
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);
export const OTHER = 'other';
/** Requests that belong to no context. */
export const NONE = 'none';

/** Known methods as they are, any other token as `other`. */
export const methodLabel = (method: string): string => (METHODS.has(method) ? method : OTHER);

/** `2xx`; anything that is no status is `other`. */
export const statusClass = (status: number): string =>
  Number.isInteger(status) && status >= 100 && status <= 599 ? `${Math.floor(status / 100)}xx` : OTHER;

/** The parts of a note that become labels and values. */
export type RequestSample = Pick<
  JournalEntry,
  'context' | 'route' | 'method' | 'upstream' | 'reason' | 'status' | 'durationMs' | 'tunnel' | 'memo'
>;

type Side = Upstream | typeof NONE;
type Count = {
  readonly side: Side;
  readonly method: string;
  readonly statusOf: number;
  readonly reason: string;
  readonly labels: Readonly<Record<string, string>>;
  value: number;
};
type Durations = {
  readonly labels: Readonly<Record<string, string>>;
  /** Not cumulative counts, the sum of seconds, the number of requests: `CELLS` numbers from `at` on. */
  readonly cells: Float64Array;
  readonly at: number;
};

/** A bucket for each bound and one for the rest, then sum and count. */
const SUM = SECONDS.length + 1;
const COUNT = SUM + 1;
const CELLS = COUNT + 1;
/** Durations whose cells share one array: two cache lines each, side by side. */
const CHUNK = 256;

const classOf = (status: number): number => (status >= 100 && status <= 599 ? Math.floor(status / 100) : 0);

const bucketOf = (seconds: number): number => {
  let i = 0;
  while (i < SECONDS.length && seconds > SECONDS[i]!) i++;
  return i;
};

/** A metric whose values are read at a scrape, in a shape that prom-client writes and merges as one of its own. */
const readAtScrape = (registry: Registry, name: string, help: string, type: string, read: () => MetricValue<string>[]): void => {
  const get = async () =>
    ({ name, help, type, aggregator: 'sum', values: read() }) as unknown as MetricObjectWithValues<MetricValue<string>>;
  registry.registerMetric({ name, help, get, reset: () => undefined } as unknown as Metric);
};

/**
 * `banyan_requests_total` and `banyan_request_duration_seconds`. Each route's meter holds the very cells that it counts in: with 10,000 routes
 * prom-client's way, which puts labels together and looks them up for each request, met memory that is in no cache, and cost 4 us of a request
 * (`--cpu-prof`, Node 24).
 * @param contextLabel folds contexts beyond the bound
 * @param routeLabel folds routes beyond the bound
 */
export const createRequestMetrics = (
  registry: Registry,
  contextLabel: (name: string) => string,
  routeLabel: (route: string) => string,
): ((sample: RequestSample) => void) => {
  const counts = new Map<string, Count>();
  const durations = new Map<string, Durations>();

  const countOf = (labels: Count['labels'], side: Side, method: string, statusOf: number, reason: string): Count => {
    const key = JSON.stringify(Object.values(labels));
    let found = counts.get(key);
    if (found === undefined) {
      found = { side, method, statusOf, reason, labels, value: 0 };
      counts.set(key, found);
    }
    return found;
  };
  let chunk = new Float64Array(CHUNK * CELLS);
  const durationsOf = (labels: Durations['labels']): Durations => {
    const key = JSON.stringify(Object.values(labels));
    let found = durations.get(key);
    if (found === undefined) {
      const place = durations.size % CHUNK;
      if (place === 0 && durations.size > 0) chunk = new Float64Array(CHUNK * CELLS);
      found = { labels, cells: chunk, at: place * CELLS };
      durations.set(key, found);
    }
    return found;
  };

  const createMeter = (context: string, route: string): RequestMeter => {
    /** What the route's requests were counted as last, most of them all the time. */
    let last: Count | null = null;
    const sides: Record<Side, Durations | null> = { legacy: null, extracted: null, none: null };
    return {
      add({ method, upstream, status, reason, durationMs, tunnel }) {
        const side = upstream ?? NONE;
        const statusOf = classOf(status);
        const why = reason ?? NONE;
        if (last === null || last.side !== side || last.method !== method || last.statusOf !== statusOf || last.reason !== why) {
          const known = methodLabel(method);
          last = countOf({ context, upstream: side, method: known, status: statusClass(status), reason: why }, side, known, statusOf, why);
        }
        last.value++;
        // hours are no latency
        if (tunnel !== undefined) return;
        sides[side] ??= durationsOf({ context, route, upstream: side });
        const { cells, at } = sides[side];
        const seconds = durationMs / 1000;
        cells[at + bucketOf(seconds)]! += 1;
        cells[at + SUM]! += seconds;
        cells[at + COUNT]! += 1;
      },
    };
  };

  readAtScrape(registry, 'banyan_requests_total', 'Requests answered.', 'counter', () =>
    [...counts.values()].map(({ labels, value }) => ({ labels: { ...labels }, value })),
  );
  const name = 'banyan_request_duration_seconds';
  readAtScrape(registry, name, 'From the request to the end of its answer.', 'histogram', () =>
    [...durations.values()].flatMap(({ labels, cells, at }) => {
      const [sum, count] = [cells[at + SUM]!, cells[at + COUNT]!];
      let upTo = 0;
      const values: (MetricValue<string> & { metricName: string; exemplar?: null })[] = SECONDS.map((le, i) => {
        upTo += cells[at + i]!;
        return { labels: { le, ...labels }, value: upTo, metricName: `${name}_bucket`, exemplar: null };
      });
      values.push({ labels: { le: '+Inf', ...labels }, value: count, metricName: `${name}_bucket`, exemplar: null });
      values.push({ labels: { ...labels }, value: sum, metricName: `${name}_sum` });
      values.push({ labels: { ...labels }, value: count, metricName: `${name}_count` });
      return values;
    }),
  );

  /** Of notes that bring no memo along: traffic that belongs to no context, and upgrades. */
  const meters = new Map<string, RequestMeter>();
  const unowned = createMeter(NONE, NONE);
  const meterOf = ({ context, route }: RequestSample): RequestMeter => {
    if (context === null && route === null) return unowned;
    const [known, at] = [context === null ? NONE : contextLabel(context), route === null ? NONE : routeLabel(route)];
    const key = JSON.stringify([known, at]);
    let found = meters.get(key);
    if (found === undefined) {
      found = createMeter(known, at);
      meters.set(key, found);
    }
    return found;
  };

  return (sample) => {
    const { memo } = sample;
    if (memo === undefined) return meterOf(sample).add(sample);
    memo.meter ??= meterOf(sample);
    memo.meter.add(sample);
  };
};
