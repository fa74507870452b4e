import { crc32 } from 'node:zlib';
import { invalid, KinesisError } from './errors.ts';

/** Where a reader stands: it reads records with an index of at least `index`. `issued` in ms since the epoch. */
export type ShardIterator = { readonly stream: string; readonly shard: number; readonly index: number; readonly issued: number };

const seal = (kind: string, payload: string): string => {
  const body = `${kind}|${payload}`;
  return Buffer.from(`${crc32(body).toString(16).padStart(8, '0')}${body}`).toString('base64');
};

/** The payload of a token that `seal` made for `kind`, or undefined. The checksum catches mangled tokens; nobody is kept from forging one. */
const unseal = (kind: string, token: string): string | undefined => {
  const text = Buffer.from(token, 'base64').toString();
  const body = text.slice(8);
  if (Number.parseInt(text.slice(0, 8), 16) !== crc32(body) || !body.startsWith(`${kind}|`)) return undefined;
  return body.slice(kind.length + 1);
};

/** Tells whoever reads the error when the token was made, as AWS does. */
const stamp = (ms: number): string => new Date(ms).toISOString();

export const writeIterator = (it: ShardIterator): string => seal('iterator', `${it.issued}|${it.stream}|${it.shard}|${it.index}`);

/** @throws KinesisError InvalidArgumentException when it is none of ours, ExpiredIteratorException when it is older than `maxAgeMs`. */
export const readIterator = (token: string, now: number, maxAgeMs: number): ShardIterator => {
  const [issued, stream, shard, index] = (unseal('iterator', token) ?? '').split('|');
  if (!issued || !stream || !shard || !index) throw invalid('Invalid ShardIterator.');
  if (now - Number(issued) > maxAgeMs)
    throw new KinesisError(
      'ExpiredIteratorException',
      `Iterator expired. The iterator was created at time ${stamp(Number(issued))} while right now it is ${stamp(now)} which is further in the future than the tolerated delay of ${maxAgeMs} milliseconds.`,
    );
  return { issued: Number(issued), stream, shard: Number(shard), index: Number(index) };
};

/** A list token carries JSON: the place to go on from and whatever filter the first call had. */
export const writeListToken = (kind: string, state: object, now: number): string => seal(kind, `${now}|${JSON.stringify(state)}`);

/** @throws KinesisError InvalidArgumentException or ExpiredNextTokenException. */
export const readListToken = (kind: string, token: string, now: number, maxAgeMs: number): unknown => {
  const payload = unseal(kind, token);
  if (payload === undefined) throw invalid('Invalid NextToken.');
  const cut = payload.indexOf('|');
  if (now - Number(payload.slice(0, cut)) > maxAgeMs) throw new KinesisError('ExpiredNextTokenException', 'NextToken has expired.');
  return JSON.parse(payload.slice(cut + 1));
};
