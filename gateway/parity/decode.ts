import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { brotliDecompress, gunzip, inflate, inflateRaw, zstdDecompress } from 'node:zlib';
import { headerValues, lastHeader, type Observation } from '../core/parity/observation.ts';

type Decoder = (body: Uint8Array, options: { maxOutputLength: number }) => Promise<Uint8Array>;

const zlibInflate: Decoder = promisify(inflate);
const rawInflate: Decoder = promisify(inflateRaw);

const DECODERS: Readonly<Record<string, Decoder>> = {
  gzip: promisify(gunzip),
  'x-gzip': promisify(gunzip),
  // Some servers send raw deflate under this name (RFC 9110, 8.4.1.2 notes it): low nibble 8 is the zlib header.
  deflate: (body, options) => (((body[0] ?? 0) & 0x0f) === 8 ? zlibInflate(body, options) : rawInflate(body, options)),
  br: promisify(brotliDecompress),
  zstd: promisify(zstdDecompress),
};

/** Codings in a row that are still undone; more is an attack (RFC 9110 sets no limit). */
const MAX_CODINGS = 3;

/** Is there nothing to take off, and nothing larger than the limit? Then `decodePair` would give the answer back as it is. */
const isPlain = (observation: Observation, limitBytes: number): boolean =>
  observation.digest === undefined &&
  (observation.body === null ||
    (observation.body.length <= limitBytes && (!observation.complete || lastHeader(observation, 'content-encoding') === undefined)));

/** SHA-256 over bytes, hex. */
const digestOf = (body: Uint8Array): string => createHash('sha256').update(body).digest('hex');

/**
 * Takes the content codings (gzip, deflate, br, zstd, also several) off an observation's body, in zlib's threads.
 * Never throws: a body that does not decode keeps its bytes and gets an `encodingFault`; one whose decoded form is larger than `limitBytes`
 * (a bomb stops there too), or whose bytes already are, keeps only a digest of the bytes as sent, if `complete`.
 */
export const decodeObservation = async (observation: Observation, limitBytes: number): Promise<Observation> => {
  if (observation.body === null || observation.digest !== undefined || !observation.complete) return observation;
  const streamed = (): Observation => ({ ...observation, body: null, digest: digestOf(observation.body!) });
  if (observation.body.length > limitBytes) return streamed();
  const codings = headerValues(observation, 'content-encoding')
    .flatMap((value) => value.split(','))
    .map((coding) => coding.trim().toLowerCase())
    .filter((coding) => coding !== '' && coding !== 'identity');
  if (codings.length === 0 || observation.body.length === 0) return observation;
  if (codings.length > MAX_CODINGS) return { ...observation, encodingFault: `more than ${MAX_CODINGS} content codings` };
  let body = observation.body;
  for (const coding of codings.reverse()) {
    const decoder = DECODERS[coding];
    if (!decoder) return { ...observation, encodingFault: `unknown content coding ${JSON.stringify(coding.slice(0, 40))}` };
    try {
      body = await decoder(body, { maxOutputLength: limitBytes });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') return streamed();
      return { ...observation, encodingFault: `not ${coding}` };
    }
  }
  return { ...observation, body };
};

/** Both answers of a pair, decoded. When one side only has a digest the other one gets its own, so that they can be compared. */
export const decodePair = async (
  legacy: Observation,
  extracted: Observation,
  limitBytes: number,
): Promise<[legacy: Observation, extracted: Observation]> => {
  const decoded = await Promise.all([decodeObservation(legacy, limitBytes), decodeObservation(extracted, limitBytes)]);
  if (decoded.every((side) => side.digest === undefined)) return decoded;
  const sent = [legacy, extracted];
  return decoded.map((side, i) =>
    side.digest === undefined && side.complete ? { ...side, digest: digestOf(sent[i]!.body ?? new Uint8Array(0)) } : side,
  ) as [Observation, Observation];
};

/** Did the decoder give up because of its limit? */
const isOver = (sent: Observation, decoded: Observation): boolean => sent.body !== null && decoded.body === null;

/**
 * `decodePair`, if neither body is larger than `smallBytes`, sent or decoded; else null, after at most so much was decoded. Pairs that have nothing to
 * decode come back at once.
 */
export const smallPair = (
  legacy: Observation,
  extracted: Observation,
  limitBytes: number,
  smallBytes: number,
): [Observation, Observation] | Promise<[Observation, Observation] | null> | null => {
  const [small, cut] = [Math.min(limitBytes, smallBytes), limitBytes > smallBytes];
  if (isPlain(legacy, small) && isPlain(extracted, small)) return [legacy, extracted];
  if (!cut) return decodePair(legacy, extracted, limitBytes);
  if ((legacy.body?.length ?? 0) > small || (extracted.body?.length ?? 0) > small) return null;
  return decodePair(legacy, extracted, small).then((pair) => (isOver(legacy, pair[0]) || isOver(extracted, pair[1]) ? null : pair));
};
