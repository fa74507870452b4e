import * as consumers from './consumers.ts';
import type { Faults } from './faults.ts';
import type { Run } from './protocol.ts';
import { getRecords, getShardIterator } from './reads.ts';
import { type Operation, parseRequest, REQUESTS, type Request } from './requests.ts';
import { mergeShards, splitShard, updateShardCount } from './reshard.ts';
import * as settings from './settings.ts';
import { listShards } from './shard-list.ts';
import type { Deps as StreamDeps } from './stream-of.ts';
import * as streams from './streams.ts';
import type { Throttle } from './throttle.ts';
import { putRecord, putRecords } from './writes.ts';

type Deps = StreamDeps & { readonly throttle: Throttle; readonly faults: Faults };
type Table = { readonly [O in Operation]: (d: Deps, request: Request<O>, region: string) => object | Promise<object> };

const OPERATIONS: Table = {
  CreateStream: streams.createStream,
  DeleteStream: streams.deleteStream,
  DescribeStream: streams.describeStream,
  DescribeStreamSummary: streams.describeStreamSummary,
  ListStreams: streams.listStreams,
  ListShards: listShards,
  IncreaseStreamRetentionPeriod: streams.increaseRetention,
  DecreaseStreamRetentionPeriod: streams.decreaseRetention,
  AddTagsToStream: streams.addTags,
  RemoveTagsFromStream: streams.removeTags,
  ListTagsForStream: streams.listTags,
  SplitShard: splitShard,
  MergeShards: mergeShards,
  UpdateShardCount: updateShardCount,
  UpdateStreamMode: settings.updateStreamMode,
  UpdateMaxRecordSize: settings.updateMaxRecordSize,
  StartStreamEncryption: settings.startEncryption,
  StopStreamEncryption: settings.stopEncryption,
  EnableEnhancedMonitoring: settings.enableMonitoring,
  DisableEnhancedMonitoring: settings.disableMonitoring,
  DescribeLimits: settings.describeLimits,
  RegisterStreamConsumer: consumers.registerConsumer,
  DeregisterStreamConsumer: consumers.deregisterConsumer,
  DescribeStreamConsumer: consumers.describeConsumer,
  ListStreamConsumers: consumers.listConsumers,
  SubscribeToShard: (d, request) => d.subscriptions.subscribe(d, request),
  PutRecord: putRecord,
  PutRecords: putRecords,
  GetShardIterator: getShardIterator,
  GetRecords: getRecords,
};

/** Every operation that the emulator knows: its request shape (requests.ts) and what runs it. */
export const createOperations = (d: Deps): { knows: (operation: string) => operation is Operation; run: Run } => {
  const call = async <O extends Operation>(operation: O, body: unknown, region: string): Promise<object> =>
    OPERATIONS[operation](d, parseRequest(operation, body), region);
  return { knows: (operation): operation is Operation => Object.hasOwn(REQUESTS, operation), run: call };
};
