import { diffHeaders } from './diff-headers.ts';
import { diffJson } from './diff-json.ts';
import { type DocumentClass, parseDocument, parseMultipart } from './documents.ts';
import { type JsonValue, MAX_DEPTH, type ParseResult, parseJson, printable } from './json.ts';
import { charsetOf, classOf, type Decoded, decodeText, type MediaType, mediaTypeOf } from './media.ts';
import type { Difference, Noise, Observation, Verdict } from './observation.ts';
import { pathText } from './path.ts';
import type { CompiledRules } from './rules.ts';

/** More differences than this say nothing new; the rest is not listed. */
const MAX_DIFFERENCES = 1_000;

type Found = Difference & { readonly rule: string | undefined };
type BodyResult = { readonly found: readonly Found[]; readonly note?: string };

const EMPTY = new Uint8Array(0);
const NOTHING: BodyResult = { found: [] };
const MATCH: Verdict = Object.freeze({ kind: 'match' });

/** From this size on it pays to move bytes to where they can be looked at four at a time. */
const WORTH_ALIGNING = 4_096;

const wordsOf = (bytes: Uint8Array): Uint32Array =>
  bytes.byteOffset % 4 === 0
    ? new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
    : new Uint32Array(bytes.slice(0, bytes.length & ~3).buffer);

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => {
  if (a.length !== b.length) return false;
  let at = 0;
  if (a.length >= WORTH_ALIGNING) {
    const [left, right] = [wordsOf(a), wordsOf(b)];
    for (let i = 0; i < left.length; i++) if (left[i] !== right[i]) return false;
    at = left.length * 4;
  }
  for (; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
};

/** A text long enough to drown a report is shown around the first difference only. */
const EXCERPT = 2_000;
const excerpt = (text: string, at: number): string => {
  if (text.length <= EXCERPT) return text;
  const from = Math.max(0, at - EXCERPT / 4);
  return `${from > 0 ? '…' : ''}${text.slice(from, from + EXCERPT)}${from + EXCERPT < text.length ? '…' : ''}`;
};
const firstDifference = (a: string, b: string): number => {
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  return i;
};
const textPair = (a: string, b: string): { legacy: string; extracted: string } => {
  const at = firstDifference(a, b);
  return { legacy: excerpt(a, at), extracted: excerpt(b, at) };
};

/**
 * Judges two whole answers to one query. Pure: stored evidence can be judged again under other rules.
 * `match` = nothing differs; `noise` = only what rules excuse; `mismatch` = something else; `incomparable` = an answer is not whole
 * or too large to compare. Default headers that never count (see diff-headers.ts), array rules and tolerances make no noise.
 */
export const compareObservations = (legacy: Observation, extracted: Observation, rules: CompiledRules): Verdict => {
  const broken = legacy.complete ? (extracted.complete ? null : extracted) : legacy;
  if (broken !== null) return { kind: 'incomparable', why: broken.why ?? 'truncated' };
  const streamed = legacy.digest !== undefined || extracted.digest !== undefined;
  const equalBytes = streamed ? legacy.digest === extracted.digest : sameBytes(legacy.body ?? EMPTY, extracted.body ?? EMPTY);

  const found: Found[] = [];
  if (legacy.status !== extracted.status)
    found.push({ path: 'status', kind: 'status', legacy: legacy.status, extracted: extracted.status, rule: rules.status });
  for (const difference of diffHeaders(legacy, extracted, equalBytes))
    found.push({ ...difference, rule: rules.header(difference.path.slice('header:'.length)) });
  // Digests that differ prove nothing: key order or a clock may be all there is. A status or header that differs is proof enough.
  if (streamed && !equalBytes && !found.some(({ rule }) => rule === undefined)) return { kind: 'incomparable', why: 'too-large' };
  const body = streamed ? NOTHING : diffBodies(legacy, extracted, equalBytes, rules);
  for (const one of body.found) found.push(one);
  if (found.length === 0) return body.note === undefined ? MATCH : { kind: 'match', why: body.note };

  const differences: Difference[] = [];
  const noise: Noise[] = [];
  for (const { rule, ...difference } of found) {
    if (rule === undefined) differences.push(difference);
    else noise.push({ ...difference, rule });
  }
  if (differences.length > 0) return { kind: 'mismatch', differences, noise };
  return { kind: 'noise', noise };
};

const rootRule = (rules: CompiledRules): string | undefined => rules.body.here.find((rule) => rule.kind === 'ignore')?.name;

const diffBodies = (legacy: Observation, extracted: Observation, equalBytes: boolean, rules: CompiledRules): BodyResult => {
  const [a, b] = [legacy.body ?? EMPTY, extracted.body ?? EMPTY];
  const whole = (difference: Omit<Difference, 'path'>): BodyResult => ({ found: [{ path: '$', ...difference, rule: rootRule(rules) }] });
  if (legacy.encodingFault !== undefined || extracted.encodingFault !== undefined) {
    if (legacy.encodingFault !== undefined && extracted.encodingFault !== undefined && equalBytes)
      return { found: [], note: 'encoding fault on both sides, bytes are equal' };
    return whole({ kind: 'encoding', legacy: legacy.encodingFault ?? 'decodes', extracted: extracted.encodingFault ?? 'decodes' });
  }
  if (a.length === 0 || b.length === 0) {
    if (a.length === b.length) return NOTHING;
    const side = a.length === 0 ? extracted : legacy;
    const value = preview(side.body ?? EMPTY, mediaTypeOf(side));
    return whole(a.length === 0 ? { kind: 'extra', extracted: value } : { kind: 'missing', legacy: value });
  }
  const [aMedia, bMedia] = [mediaTypeOf(legacy), mediaTypeOf(extracted)];
  // A side that names no type is read as the other one's: the missing header is a difference of its own.
  const [ours, theirs] = [aMedia ?? bMedia, bMedia ?? aMedia];
  const [kind, otherKind] = [classOf(ours, a), classOf(theirs, b)];
  if (kind !== otherKind) return equalBytes ? NOTHING : whole({ kind: 'type', legacy: kind, extracted: otherKind });
  // Only of JSON somebody wants to know that it is broken on both sides.
  if (equalBytes && kind !== 'json' && kind !== 'ndjson') return NOTHING;
  if (kind === 'binary') return whole(binaryDifference(a, b));
  if (kind === 'multipart') {
    const parts = [parseMultipart(ours?.boundary ?? '', a), parseMultipart(theirs?.boundary ?? '', b)] as const;
    return parts.every(({ ok }) => ok)
      ? diffDocuments(parts[0], parts[1], rules, LONG_VALUES)
      : whole({ kind: 'unparsable', ...brokenParts(parts, a, b) });
  }

  const left = decodeText(a, charsetOf(ours, kind, a));
  // A charset may be named by one side only.
  const right = equalBytes && ours === theirs ? left : decodeText(b, charsetOf(theirs, kind, b));
  if (left.bom !== right.bom || left.valid !== right.valid || (!left.valid && !equalBytes)) {
    const name = ({ bom, valid }: typeof left): string => `${valid ? 'valid' : 'invalid'} text${bom ? ' with a byte order mark' : ''}`;
    return whole({ kind: 'encoding', legacy: name(left), extracted: name(right) });
  }
  // Of equal bytes nobody needs the document, only whether it is one.
  if (equalBytes && kind === 'json' && isPlainJson(left.text)) return NOTHING;
  if (kind === 'text') return left.text === right.text ? NOTHING : whole({ kind: 'value', ...textPair(left.text, right.text) });
  return diffTexts(kind, left, right, equalBytes, rules, whole);
};

/** With no more brackets than this nothing is nested deeper than our own parser reads. */
const MOST_BRACKETS = MAX_DEPTH;

/** Is it surely JSON, as the platform's quicker parser sees it? False = look closer. */
const isPlainJson = (text: string): boolean => {
  let brackets = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if ((code === 0x5b || code === 0x7b) && ++brackets > MOST_BRACKETS) return false;
  }
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
};

const brokenParts = (parts: readonly ParseResult[], a: Uint8Array, b: Uint8Array): { legacy: string; extracted: string } => {
  const shown = (part: ParseResult | undefined, body: Uint8Array): string => (part?.ok ? 'parses' : `${part?.why} (${body.length} bytes)`);
  return { legacy: shown(parts[0], a), extracted: shown(parts[1], b) };
};

const diffTexts = (
  kind: DocumentClass,
  left: Decoded,
  right: Decoded,
  equalBytes: boolean,
  rules: CompiledRules,
  whole: (difference: Omit<Difference, 'path'>) => BodyResult,
): BodyResult => {
  const ours = kind === 'json' ? parseJson(left.text, { codes: left.codes }) : parseDocument(kind, left.text);
  const theirs = equalBytes ? ours : kind === 'json' ? beside(ours, left.text, right) : parseDocument(kind, right.text);
  if (!ours.ok || !theirs.ok) {
    if (ours.ok === theirs.ok && left.text === right.text)
      return { found: [], note: `unparsable on both sides (${ours.ok ? '' : ours.why}), bytes are equal` };
    return whole({ kind: 'unparsable', ...textPair(left.text, right.text) });
  }
  return equalBytes ? NOTHING : diffDocuments(ours, theirs, rules, kind === 'json' || kind === 'ndjson' ? printable : LONG_VALUES);
};

const beside = (ours: ParseResult, text: string, right: Decoded): ParseResult =>
  parseJson(right.text, { codes: right.codes, twin: ours.ok ? { text, value: ours.value } : undefined });

/** Text inside markup and parts may be a whole page or file; JSON values are shown as they are. */
const LONG_VALUES = (value: JsonValue): unknown => (typeof value === 'string' ? excerpt(value, 0) : printable(value));

const diffDocuments = (ours: ParseResult, theirs: ParseResult, rules: CompiledRules, show: (value: JsonValue) => unknown): BodyResult => {
  if (!ours.ok || !theirs.ok) return NOTHING;
  const found: Found[] = [];
  const count = { real: 0, excused: 0 };
  diffJson(ours.value, theirs.value, rules.body, (path, kind, a, b, rule) => {
    // Two caps, so that noise never crowds out a difference.
    if (count[rule === undefined ? 'real' : 'excused']++ >= MAX_DIFFERENCES) return;
    const texts = show === LONG_VALUES && typeof a === 'string' && typeof b === 'string' ? textPair(a, b) : undefined;
    found.push({
      path: pathText(path),
      kind,
      ...(a === undefined ? {} : { legacy: texts?.legacy ?? show(a) }),
      ...(b === undefined ? {} : { extracted: texts?.extracted ?? show(b) }),
      rule,
    });
  });
  return { found };
};

const preview = (body: Uint8Array, media: MediaType | null): unknown => {
  const kind = classOf(media, body);
  if (kind === 'binary' || kind === 'multipart') return `${body.length} bytes`;
  const { text } = decodeText(body, charsetOf(media, kind, body));
  const parsed = kind === 'json' ? parseJson(text) : undefined;
  return parsed?.ok ? printable(parsed.value) : excerpt(text, 0);
};

const hex = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');

/** Bytes of another number are a `length`, of the same number a `value`, shown from the first byte that differs. */
const binaryDifference = (a: Uint8Array, b: Uint8Array): Omit<Difference, 'path'> => {
  if (a.length !== b.length) return { kind: 'length', legacy: a.length, extracted: b.length };
  const at = a.findIndex((byte, i) => byte !== b[i]);
  const shown = (bytes: Uint8Array): string => `byte ${at}: ${hex(bytes.subarray(at, at + 16))}`;
  return { kind: 'value', legacy: shown(a), extracted: shown(b) };
};
