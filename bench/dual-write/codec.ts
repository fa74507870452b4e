import { createAggregator, deaggregate } from '@banyan/contracts/kpl.ts';
import { median } from '../report.ts';

const BLOB_BYTES = 25_600;
const KEYS = Array.from({ length: 1_000 }, (_, i) => `${100_000 + i}`);
const HASH = ((5n << 124n) + (1n << 123n)).toString();
const DATA = Buffer.alloc(200, 'x');

let next = 0;
const fill = () => {
  const aggregator = createAggregator(BLOB_BYTES);
  while (aggregator.add({ partitionKey: KEYS[next % KEYS.length]!, explicitHashKey: HASH, data: DATA })) next += 1;
  return aggregator;
};

/** Events per second of `work`, which answers how many it did. */
const rateOf = (work: () => number, ms: number): number => {
  const began = performance.now();
  let events = 0;
  while (performance.now() - began < ms) events += work();
  return (events / (performance.now() - began)) * 1000;
};

/** Blobs as the relay builds them (200 bytes of data, 1,000 keys), written and read in turn; medians of the rounds. */
export const measureCodec = (rounds: number, ms: number): { encode: number; decode: number } => {
  const encode = (): number => {
    const aggregator = fill();
    aggregator.finish();
    return aggregator.count();
  };
  const blob = fill().finish();
  const decode = (): number => deaggregate(blob)?.length ?? 0;
  rateOf(encode, ms);
  rateOf(decode, ms);
  const rates = Array.from({ length: rounds }, () => [rateOf(encode, ms), rateOf(decode, ms)] as const);
  return { encode: Math.round(median(rates.map(([one]) => one))), decode: Math.round(median(rates.map(([, one]) => one))) };
};
