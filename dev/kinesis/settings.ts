import { ACCOUNT, invalid } from './errors.ts';
import type { Request } from './requests.ts';
import type { Stream } from './store.ts';
import { activeStreamOf, type Deps } from './stream-of.ts';

const METRICS = [
  'IncomingBytes',
  'IncomingRecords',
  'OutgoingBytes',
  'OutgoingRecords',
  'WriteProvisionedThroughputExceeded',
  'ReadProvisionedThroughputExceeded',
  'IteratorAgeMilliseconds',
] as const;
/** On-demand streams of an account. */
const ON_DEMAND_LIMIT = 50;

const ON_DEMAND = 'ON_DEMAND';

export const updateStreamMode = async (d: Deps, request: Request<'UpdateStreamMode'>): Promise<object> => {
  const stream = activeStreamOf(d, { StreamARN: request.StreamARN });
  if (request.WarmThroughputMiBps != null) throw invalid('The emulator knows no WarmThroughputMiBps.');
  await d.store.record({ kind: 'settings', id: stream.id, mode: request.StreamModeDetails.StreamMode });
  return {};
};

export const updateMaxRecordSize = async (d: Deps, request: Request<'UpdateMaxRecordSize'>): Promise<object> => {
  const stream = activeStreamOf(d, { StreamARN: request.StreamARN });
  await d.store.record({ kind: 'settings', id: stream.id, maxRecordKiB: request.MaxRecordSizeInKiB });
  return {};
};

/** Only noted: what lies in the emulator's file is not encrypted. */
export const startEncryption = async (d: Deps, request: Request<'StartStreamEncryption'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  await d.store.record({ kind: 'settings', id: stream.id, keyId: request.KeyId });
  return {};
};

export const stopEncryption = async (d: Deps, request: Request<'StopStreamEncryption'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  if (stream.keyId !== null && stream.keyId !== request.KeyId)
    throw invalid(`KeyId ${request.KeyId} is not the key of stream ${stream.name} under account ${ACCOUNT}.`);
  await d.store.record({ kind: 'settings', id: stream.id, keyId: null });
  return {};
};

const changeMonitoring = async (d: Deps, stream: Stream, metrics: readonly string[]): Promise<object> => {
  const before = stream.monitoring;
  await d.store.record({ kind: 'settings', id: stream.id, monitoring: metrics });
  return { StreamName: stream.name, StreamARN: stream.arn, CurrentShardLevelMetrics: before, DesiredShardLevelMetrics: metrics };
};

const named = (metrics: readonly string[]): readonly string[] => (metrics.includes('ALL') ? METRICS : metrics);

export const enableMonitoring = (d: Deps, request: Request<'EnableEnhancedMonitoring'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  const wanted = new Set([...stream.monitoring, ...named(request.ShardLevelMetrics)]);
  return changeMonitoring(
    d,
    stream,
    METRICS.filter((metric) => wanted.has(metric)),
  );
};

export const disableMonitoring = (d: Deps, request: Request<'DisableEnhancedMonitoring'>): Promise<object> => {
  const stream = activeStreamOf(d, request);
  const gone = named(request.ShardLevelMetrics);
  return changeMonitoring(
    d,
    stream,
    stream.monitoring.filter((metric) => !gone.includes(metric)),
  );
};

export const describeLimits = (d: Deps): object => ({
  ShardLimit: d.limits.maxShards,
  OpenShardCount: d.store.openShards(),
  OnDemandStreamCount: [...d.store.streams()].filter((stream) => stream.mode === ON_DEMAND).length,
  OnDemandStreamCountLimit: ON_DEMAND_LIMIT,
});
