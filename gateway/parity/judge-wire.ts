import type { Observation, Verdict } from '../core/parity/observation.ts';
import type { ParityRules } from '../core/parity/rules.ts';
import { shapeOf } from '../core/parity/shape.ts';
import type { ExemplarSource, Redaction } from './exemplar.ts';

/** Two answers as they were sent, codings still on. Bodies are bytes of their own, so that they can be handed over. */
export type SentPair = { readonly legacy: Observation; readonly extracted: Observation; readonly bodyLimitBytes: number };

export type JudgeTask = SentPair & {
  readonly kind: 'judge';
  readonly rules: ParityRules;
  /** The same number for the same rules, which are then compiled once. */
  readonly rulesVersion: number;
  /** Unix ms. */
  readonly now: number;
};
export type ExemplarTask = SentPair & {
  readonly kind: 'exemplar';
  readonly pair: Omit<ExemplarSource, 'answers' | 'verdict'>;
  readonly verdict: Text;
  readonly field: string;
  readonly redaction: Redaction;
};
export type Task = JudgeTask | ExemplarTask;

/** What the thread says: once that it is there, then one of the others for each task, in order. */
export type Said =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly result: Text }
  | { readonly kind: 'failed'; readonly why: string };

/** A value as JSON text, because number tokens that JavaScript cannot hold (`JSON.rawJSON`) cannot be cloned. */
export type Text = {
  readonly json: string;
  /** Has it such tokens? Reading them costs five times as much. */
  readonly tokens: boolean;
};

type Source = { readonly source?: string };
const raw = JSON as unknown as {
  rawJSON(text: string): unknown;
  parse(text: string, reviver: (key: string, value: unknown, context: Source) => unknown): unknown;
};

export const toText = (value: unknown): Text => {
  const json = JSON.stringify(value);
  // A token that is no number of JavaScript's comes back spelled differently.
  return { json, tokens: JSON.stringify(JSON.parse(json)) !== json };
};

export const fromText = ({ json, tokens }: Text): unknown =>
  tokens
    ? raw.parse(json, (_key, value, { source }) =>
        typeof value === 'number' && source !== undefined && String(value) !== source ? raw.rawJSON(source) : value,
      )
    : JSON.parse(json);

/** A verdict that is longer than this as JSON comes without its long values: reading it would hold up requests. */
const MAX_VERDICT_CHARS = 256 * 1024;
const LONG_VALUE_CHARS = 128;
const LONG_PATH_CHARS = 256;

/** What stands for a value that is too long to come along; of the same shape, so that noise is told apart as before. */
const standIn = (value: unknown): unknown => {
  const length = JSON.stringify(value)?.length ?? 0;
  if (length <= LONG_VALUE_CHARS) return value;
  const told = `${length} characters of JSON`;
  const shape = shapeOf(value);
  return shape === 'array' ? [told] : shape === 'object' ? { '…': told } : shape === 'number' ? value : told;
};

const withoutLongValues = <D extends { readonly path: string; readonly legacy?: unknown; readonly extracted?: unknown }>(
  differences: readonly D[],
): D[] =>
  differences.map((one) => ({
    ...one,
    path: one.path.length > LONG_PATH_CHARS ? `${one.path.slice(0, LONG_PATH_CHARS)}…` : one.path,
    ...('legacy' in one ? { legacy: standIn(one.legacy) } : {}),
    ...('extracted' in one ? { extracted: standIn(one.extracted) } : {}),
  }));

/** A verdict as text of bounded size. */
export const verdictText = (verdict: Verdict): Text => {
  const whole = toText(verdict);
  if (whole.json.length <= MAX_VERDICT_CHARS) return whole;
  if (verdict.kind === 'mismatch')
    return toText({ ...verdict, differences: withoutLongValues(verdict.differences), noise: withoutLongValues(verdict.noise) });
  return verdict.kind === 'noise' ? toText({ ...verdict, noise: withoutLongValues(verdict.noise) }) : whole;
};
