import { type Difference, verdictDocument } from '../core/parity/observation.ts';
import type { JudgedPair, NewPair } from './evidence.ts';
import { createRedactor, type StoredAnswer } from './redact.ts';

/** What of a judged pair an example shows. */
export type ExemplarSource = Pick<
  JudgedPair,
  'context' | 'route' | 'requestId' | 'at' | 'verdict' | 'confirmed' | 'primary' | 'method' | 'target' | 'headers' | 'answers'
>;

/** How secrets are taken out. */
export type Redaction = {
  /** DESIGN's `redact:` list. */
  readonly list: readonly string[];
  /** For the HMAC of redacted values. */
  readonly key: Uint8Array;
};

const MAX_BODY = 64 * 1024;
const MAX_VALUE = 4_096;
const MAX_STORED = 200;

const short = (value: unknown): unknown => {
  const text = JSON.stringify(value);
  return text !== undefined && text.length > MAX_VALUE ? `${text.slice(0, MAX_VALUE)}…` : value;
};
const shortened = <D extends Difference>(differences: readonly D[]): D[] =>
  differences.slice(0, MAX_STORED).map((one) => ({
    ...one,
    ...('legacy' in one ? { legacy: short(one.legacy) } : {}),
    ...('extracted' in one ? { extracted: short(one.extracted) } : {}),
  }));

const NO_ANSWER: StoredAnswer = { status: 0, headers: [], body: null, bytes: null, complete: false, truncated: false };

/** A judged pair as it is stored: redacted and cut to size. `field` is what it is an example of. Takes half a millisecond for small answers. */
export const exemplarOf = (pair: ExemplarSource, field: string, redaction: Redaction): NewPair => {
  const redactor = createRedactor(redaction.list, redaction.key);
  const { differences, noise, why } = verdictDocument(pair.verdict);
  const build = (): NewPair => ({
    context: pair.context,
    route: pair.route,
    requestId: pair.requestId,
    at: new Date(pair.at).toISOString(),
    verdict: pair.verdict.kind,
    why,
    confirmed: pair.confirmed,
    primary: pair.primary,
    field,
    method: pair.method,
    headers: redactor.headers(pair.headers),
    target: redactor.target(pair.target),
    legacy: pair.answers ? redactor.answer(pair.answers.legacy, MAX_BODY) : NO_ANSWER,
    extracted: pair.answers ? redactor.answer(pair.answers.extracted, MAX_BODY) : NO_ANSWER,
    differences: shortened(redactor.differences(differences)),
    noise: shortened(redactor.differences(noise)),
  });
  // The first pass learns the secrets, the second replaces their echoes wherever they stand.
  build();
  return build();
};
