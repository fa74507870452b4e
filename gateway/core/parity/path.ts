/** Where a walk stands: a linked list, so that a path is only spelled out when something differs there. null = the root. */
export type Path = { readonly parent: Path; readonly key: string | number } | null;

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

const quoted = (key: string): string => {
  const inner = key
    .replace(/[\\']/g, (c) => `\\${c}`)
    .replace(/[\u0000-\u001f\u007f]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return `['${inner}']`;
};

/** JSONPath of a place: `$.items[2].total`; members that are no plain names are quoted, `$['a b']`. */
export const pathText = (path: Path): string => {
  const parts: string[] = [];
  for (let here = path; here !== null; here = here.parent)
    parts.push(typeof here.key === 'number' ? `[${here.key}]` : NAME.test(here.key) ? `.${here.key}` : quoted(here.key));
  return `$${parts.reverse().join('')}`;
};

const TOKEN = /\['(?:[^'\\]|\\.)*'\]|\[\d+\]|\.[A-Za-z_][A-Za-z0-9_]*/g;
const ID_LIKE = /^(?:\d.*|[0-9a-f]{16,}|[0-9a-f]{8}-[0-9a-f-]{27}|.{41,})$/i;

/**
 * The field family of a difference's path, under which differences are counted: indexes become `[*]`, and members that look like
 * keys of a map (numbers, uuids, hashes, very long names) become `.*`, so that data never makes the list of fields grow.
 */
export const fieldOf = (path: string): string =>
  path.startsWith('$')
    ? path.replace(TOKEN, (token) => {
        if (/^\[\d/.test(token)) return '[*]';
        const name = token.startsWith('.') ? token.slice(1) : token.slice(2, -2);
        return ID_LIKE.test(name) ? '.*' : token;
      })
    : path;

/** One step of a pattern; `deep` = zero or more steps of any kind. */
export type Segment =
  | { readonly kind: 'key'; readonly key: string }
  | { readonly kind: 'index'; readonly index: number }
  | { readonly kind: 'any' }
  | { readonly kind: 'deep' };

export type PatternResult = { readonly ok: true; readonly segments: readonly Segment[] } | { readonly ok: false; readonly why: string };

/** A deep step costs a state per level; nobody writes more than a few. */
const MAX_SEGMENTS = 64;
const STEP = /(\.\.|\.)?(?:\[(?:(\*)|(\d+)|'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\]|(\*)|([\p{L}\p{N}_$-]+))/uy;

/**
 * Parses the JSONPath subset that rules use: `$`, `.name`, `['name']`, `[3]`, `[*]`, `.*`, `..name`, `..*`, `..['name']`.
 * Filters, slices, unions and negative indexes are refused with a reason.
 */
export const parsePattern = (text: string): PatternResult => {
  if (!text.startsWith('$'))
    return { ok: false, why: `expected a JSONPath that starts with $, header:NAME or status; found ${JSON.stringify(text)}` };
  const segments: Segment[] = [];
  STEP.lastIndex = 1;
  while (STEP.lastIndex < text.length) {
    const from = STEP.lastIndex;
    const step = STEP.exec(text);
    const bracket = step?.[0].includes('[') && step[6] === undefined && step[7] === undefined;
    // A bare name needs its dot; a bracket takes none or a `..`.
    if (!step || (bracket ? step[1] === '.' : step[1] === undefined))
      return {
        ok: false,
        why: `cannot read ${JSON.stringify(text.slice(from))} at offset ${from} of ${JSON.stringify(text)}: rules know .name ['name'] [3] [*] .* and ..name`,
      };
    if (step[1] === '..') segments.push({ kind: 'deep' });
    const name = step[4] ?? step[5];
    if (step[2] !== undefined || step[6] !== undefined) segments.push({ kind: 'any' });
    else if (step[3] !== undefined) segments.push({ kind: 'index', index: Number(step[3]) });
    else if (name !== undefined)
      segments.push({
        kind: 'key',
        key: name.replace(/\\u([0-9a-fA-F]{4})|\\(.)/g, (_, hex, c) => (hex ? String.fromCharCode(Number.parseInt(hex, 16)) : c)),
      });
    else segments.push({ kind: 'key', key: step[7]! });
    if (segments.length > MAX_SEGMENTS)
      return { ok: false, why: `more than ${MAX_SEGMENTS} steps in ${JSON.stringify(text.slice(0, 40))}…` };
  }
  return { ok: true, segments };
};

type State<R> = { readonly segments: readonly Segment[]; readonly at: number; readonly rule: R };

/** What patterns see at one place of a walk: the rules that name this place, and those that may still match below. */
export type Cursor<R> = { readonly here: readonly R[]; readonly below: readonly State<R>[] };

const NOWHERE: Cursor<never> = { here: [], below: [] };

/** A cursor at the root `$`. */
export const cursorAt = <R>(patterns: readonly { readonly segments: readonly Segment[]; readonly rule: R }[]): Cursor<R> =>
  patterns.length === 0
    ? NOWHERE
    : {
        here: patterns.filter(({ segments }) => segments.length === 0).map(({ rule }) => rule),
        below: patterns.filter(({ segments }) => segments.length > 0).map(({ segments, rule }) => ({ segments, at: 0, rule })),
      };

const covers = (segment: Segment | undefined, key: string | number): boolean => {
  if (segment === undefined || segment.kind === 'deep') return false;
  return segment.kind === 'any' || (segment.kind === 'key' ? segment.key === key : segment.index === key);
};

/** The cursor one step further down. Costs nothing where no pattern is alive. */
export const descend = <R>(cursor: Cursor<R>, key: string | number): Cursor<R> => {
  if (cursor.below.length === 0) return NOWHERE;
  const here: R[] = [];
  const below: State<R>[] = [];
  // Without the check the same state arrives on many ways under `$..a..a`, and their number explodes with depth.
  const keep = (state: State<R>): void => {
    if (!below.some((other) => other.segments === state.segments && other.at === state.at)) below.push(state);
  };
  for (const state of cursor.below) {
    const deep = state.segments[state.at]?.kind === 'deep';
    if (deep) keep(state);
    const next = deep ? state.at + 1 : state.at;
    if (!covers(state.segments[next], key)) continue;
    if (next + 1 < state.segments.length) keep({ ...state, at: next + 1 });
    else if (!here.includes(state.rule)) here.push(state.rule);
  }
  return here.length === 0 && below.length === 0 ? NOWHERE : { here, below };
};
