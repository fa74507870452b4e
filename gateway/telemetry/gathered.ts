import { AggregatorRegistry, type MetricObjectWithValues, type MetricValue, type Registry } from 'prom-client';

/** Everything a process has counted, as it can be sent to another. */
export type MetricsSnapshot = readonly MetricObjectWithValues<MetricValue<string>>[];

/** One view of the metrics of several processes. */
export type Gathered = {
  /** The latest of a process that lives. */
  note(id: string, snapshot: MetricsSnapshot): void;
  /** A process has ended: what it has counted stays, what it measured is gone with it. */
  left(id: string): void;
  readonly contentType: Registry['contentType'];
  /** The sum, as Prometheus reads it. A gauge with `aggregator: 'first'` is `own`'s. */
  metrics(): Promise<string>;
};

const isCounted = (metric: MetricsSnapshot[number]): boolean => {
  const type: unknown = metric.type;
  return type === 'counter' || type === 'histogram';
};

/**
 * Adds up counters and histograms so that none ever goes backwards: those of processes that ended are folded into one sum, so that it stays as
 * small as one process' metrics however many have come and gone.
 */
export const createGathered = (own: Registry): Gathered => {
  const living = new Map<string, MetricsSnapshot>();
  let ended: MetricsSnapshot = [];
  // the folding reads what it has built itself, which is in memory: a promise only by its type
  let folding: Promise<void> = Promise.resolve();

  const sumOf = (snapshots: readonly MetricsSnapshot[]): Registry => AggregatorRegistry.aggregate(snapshots as unknown as object[]);

  return {
    note: (id, snapshot) => void living.set(id, snapshot),
    left(id) {
      const last = living.get(id)?.filter(isCounted);
      folding = folding.then(async () => {
        if (last) ended = (await sumOf([ended, last]).getMetricsAsJSON()) as unknown as MetricsSnapshot;
        living.delete(id);
      });
    },
    contentType: own.contentType,
    async metrics() {
      await folding;
      const first = (await own.getMetricsAsJSON()) as unknown as MetricsSnapshot;
      return sumOf([first, ended, ...living.values()]).metrics();
    },
  };
};
