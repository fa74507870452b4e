import type { Run } from './protocol.ts';
import { getRecords, getShardIterator } from './reads.ts';
import { type Operation, parseRequest, REQUESTS, type Request } from './requests.ts';
import { mergeShards, splitShard } from './reshard.ts';
import { listShards } from './shard-list.ts';
import type { Deps as StreamDeps } from './stream-of.ts';
import * as streams from './streams.ts';
import type { Throttle } from './throttle.ts';
import { putRecord, putRecords } from './writes.ts';

type Deps = StreamDeps & { readonly throttle: Throttle };
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
