import type { DifferenceKind } from '@banyan/contracts/vocabulary.ts';

/**
 * What one upstream answered to one query.
 * Content codings are already taken off `body` (`gateway/parity/decode.ts`), framing too.
 */
export type Observation = {
  /** 100..599. */
  readonly status: number;
  /** As sent: order, case and repeats kept. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Decoded bytes; null = none (HEAD, 204, 304) or not kept (then `digest` is set). */
  readonly body: Uint8Array | null;
  /** False when the answer is not whole; `why` then says what happened. */
  readonly complete: boolean;
  /** One word for the reports: `truncated` (default), `timeout`, `unreachable`, `too-large`, … */
  readonly why?: string;
  /** Digest of the bytes as sent, when the body was larger than the limit and only streamed through a hash. Compared as an opaque string. */
  readonly digest?: string;
  /** Why the content coding could not be taken off; `body` then holds the bytes as sent. */
  readonly encodingFault?: string;
  /** `host[:port]` values that mean the application itself, for `Location`; absent = any host is taken for its own. */
  readonly ownHosts?: readonly string[];
};

/**
 * One place where two answers differ.
 * `path`: JSONPath in the body (`$.items[2].total`), `header:name`, or `status`.
 * Values are plain JSON that `JSON.stringify` prints with the raw number tokens (see `printable`); the absent side's key is left out.
 */
export type Difference = {
  readonly path: string;
  readonly kind: DifferenceKind;
  readonly legacy?: unknown;
  readonly extracted?: unknown;
};

/** A difference that a rule excuses; it stays counted and visible. */
export type Noise = Difference & { readonly rule: string };

/** What a comparison found. `why` on a match says what was odd about it (`unparsable on both sides, bytes are equal`). */
export type Verdict =
  | { readonly kind: 'match'; readonly why?: string }
  | { readonly kind: 'noise'; readonly noise: readonly Noise[] }
  | { readonly kind: 'mismatch'; readonly differences: readonly Difference[]; readonly noise: readonly Noise[] }
  | { readonly kind: 'incomparable'; readonly why: string };

/** The document that `banyan parity compare --json` and the admin API print: always these four keys. */
export type VerdictDocument = {
  readonly verdict: Verdict['kind'];
  readonly differences: readonly Difference[];
  readonly noise: readonly Noise[];
  readonly why: string | null;
};

/** A verdict as the document of DESIGN.md section 3. */
export const verdictDocument = (verdict: Verdict): VerdictDocument => ({
  verdict: verdict.kind,
  differences: verdict.kind === 'mismatch' ? verdict.differences : [],
  noise: verdict.kind === 'mismatch' || verdict.kind === 'noise' ? verdict.noise : [],
  why: verdict.kind === 'incomparable' || verdict.kind === 'match' ? (verdict.why ?? null) : null,
});

/** All values of a header, in order; `name` in lower case. */
export const headerValues = (observation: Pick<Observation, 'headers'>, name: string): string[] =>
  observation.headers.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);

/** The last value of a header, if there is one; `name` in lower case. */
export const lastHeader = ({ headers }: Pick<Observation, 'headers'>, name: string): string | undefined => {
  for (let i = headers.length - 1; i >= 0; i--) {
    const [key, value] = headers[i]!;
    if (key.length === name.length && (key === name || key.toLowerCase() === name)) return value;
  }
  return undefined;
};
