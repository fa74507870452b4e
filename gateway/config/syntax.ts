import { METHODS } from 'node:http';
import type { Parsed } from '@banyan/contracts/config-values.ts';
import { parsePattern } from '../core/parity/path.ts';

/** The little languages of the configuration: path patterns, selectors, templates, event conditions. Pure. */

const bad = (expected: string): { readonly ok: false; readonly expected: string } => ({ ok: false, expected });

/** Methods that Node's parser knows; anything else never reaches a route. */
export const isMethod = (method: string): boolean => METHODS.includes(method);

/** Names of a pattern's `:name` segments, in order. */
export const paramsOf = (pattern: string): readonly string[] =>
  pattern
    .split('/')
    .filter((segment) => segment.startsWith(':'))
    .map((segment) => segment.slice(1));

/** Accepts a pattern and gives it back as written. Segments are literal, `:name` or `**`; matched on the normalised path, so `//` and dot segments could never match. */
export const parsePathPattern = (raw: string): Parsed<string> => {
  if (!raw.startsWith('/')) return bad('a path that starts with /');
  if (/[?#]/.test(raw)) return bad('a path without ? and #: routes do not look at the query');
  if (/[\s\\{}]|[^\x21-\x7e]/.test(raw))
    return bad('a path of visible ASCII characters (others percent-encoded), with parameters written as :name');
  if (raw.length > 1_024) return bad('a path of at most 1024 characters');
  const segments = raw === '/' ? [] : raw.slice(1).split('/');
  for (const [index, segment] of segments.entries()) {
    if (segment === '' && index < segments.length - 1) return bad('a path without empty segments: // is collapsed before matching');
    if (segment === '.' || segment === '..') return bad('a path without dot segments: they are resolved before matching');
    if (segment.includes('*') && segment !== '**') return bad('** as a whole segment (zero or more segments), or :name for one segment');
    if (segment.includes(':') && !/^:[A-Za-z_][A-Za-z0-9_]*$/.test(segment)) return bad('a parameter as a whole segment, such as :id');
  }
  if (segments.filter((segment) => segment === '**').length > 1) return bad('at most one **');
  const names = paramsOf(raw);
  if (new Set(names).size !== names.length) return bad('parameter names that differ from each other');
  return { ok: true, value: raw };
};

/** Is this JSONPath one that we evaluate? Members, indexes, slices, wildcards, unions and `..`; no filters or scripts, which would run code from a file. */
const parseJsonPath = (raw: string): Parsed<string> => {
  const expected = 'a JSONPath such as $.items[0].id, $.items[*].id or $..password';
  if (!raw.startsWith('$') || raw.length > 512) return bad(expected);
  const step =
    /^(?:\.\.?(?:[^\s.[\]()'"?@*$:,{}]+|\*)|\.\.(?=\[)|\[(?:\*|-?\d{1,9}(?:,-?\d{1,9})*|(?:-?\d{0,9}:){1,2}-?\d{0,9}|'(?:[^'\\]|\\.)+'|"(?:[^"\\]|\\.)+")\])/;
  let rest = raw.slice(1);
  while (rest !== '') {
    const found = step.exec(rest);
    if (found === null) return bad(/\?|\(/.test(rest) ? `${expected}; filters and scripts are not supported` : expected);
    rest = rest.slice(found[0].length);
  }
  return { ok: true, value: raw };
};

/** The narrower JSONPath of comparison and redaction rules, as the comparison itself reads it: no slices, unions or negative indexes. */
export const parseRulePath = (raw: string): Parsed<string> => {
  const read = parsePattern(raw);
  return read.ok
    ? { ok: true, value: raw }
    : bad("a JSONPath of .name, ['name'], [3], [*], .* and ..name, such as $.items[*].id; filters and scripts are not supported");
};

export type SelectorKind = 'json' | 'header' | 'query' | 'cookie' | 'status';

/** `$…`, `header:NAME`, `query:NAME`, `cookie:NAME` or `status`, as far as `kinds` allows; header names come back in lower case. */
export const parseSelector = (
  raw: string,
  kinds: readonly SelectorKind[],
  readPath: (raw: string) => Parsed<string> = parseJsonPath,
): Parsed<string> => {
  const expected = kinds
    .map((kind) => (kind === 'json' ? 'a JSONPath such as $.id' : kind === 'status' ? 'status' : `${kind}:NAME`))
    .join(', ');
  const value = raw.trim();
  if (value === 'status') return kinds.includes('status') ? { ok: true, value } : bad(expected);
  const named = /^(header|query|cookie):(.+)$/.exec(value);
  if (named !== null) {
    const kind = named[1] as SelectorKind;
    const name = named[2] ?? '';
    if (!kinds.includes(kind)) return bad(expected);
    // RFC 9110 section 5.6.2: header and cookie names are tokens; a query name may be anything that is not a separator.
    const valid = kind === 'query' ? /^[^&=#\s]{1,256}$/.test(name) : /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/.test(name);
    if (!valid) return bad(`${kind}:NAME with a valid name`);
    return { ok: true, value: kind === 'header' ? `header:${name.toLowerCase()}` : value };
  }
  return kinds.includes('json') && value.startsWith('$') ? readPath(value) : bad(expected);
};

/** When an event is due: exactly one of `statusClass` (2 for 2xx) and `status` is set. */
export type EventCondition = {
  readonly method: string;
  readonly pathPattern: string;
  readonly statusClass: 1 | 2 | 3 | 4 | 5 | null;
  readonly status: number | null;
};

/** Reads `POST /api/orders 2xx` or `POST /api/orders 201`; without a status it means 2xx. */
export const parseEventCondition = (raw: string): Parsed<EventCondition> => {
  const expected = 'METHOD PATTERN STATUS such as POST /api/orders 2xx';
  const found = /^([A-Z-]+)\s+(\/\S*)(?:\s+(?:([1-5])xx|([1-5]\d\d)))?$/.exec(raw.trim());
  if (found === null || !isMethod(found[1] ?? '')) return bad(expected);
  const pattern = parsePathPattern(found[2] ?? '');
  if (!pattern.ok) return pattern;
  const status = found[4] === undefined ? null : Number(found[4]);
  const statusClass = status === null ? (Number(found[3] ?? '2') as 1 | 2 | 3 | 4 | 5) : null;
  return { ok: true, value: { method: found[1] ?? '', pathPattern: pattern.value, statusClass, status } };
};

/** `{name}` places of a template, in order. */
export const placesOf = (template: string): readonly string[] => [...template.matchAll(/\{([^{}]*)\}/g)].map((found) => found[1] ?? '');

/** A path (with query) whose `{name}` places are filled per request. Gives it back as written. */
export const parsePathTemplate = (raw: string): Parsed<string> => {
  const expected = 'a path such as /api/orders/{id} or /api/orders?ref={key}';
  if (!raw.startsWith('/') || raw.startsWith('//') || /[\s#]|[^\x21-\x7e]/.test(raw) || raw.length > 2_048) return bad(expected);
  if (/[{}]/.test(raw.replace(/\{[A-Za-z_][A-Za-z0-9_]*\}/g, ''))) return bad(`${expected}, with {name} for what is filled in`);
  return { ok: true, value: raw };
};

export const COMPENSATE = 'METHOD PATH such as POST /api/orders/{aggregate}/cancel, or adapter';

/** What makes up for a command: a request to legacy, or the adapter's own way (`path` null). */
export type CompensateTemplate =
  | { readonly to: 'legacy'; readonly method: string; readonly path: string }
  | { readonly to: 'adapter'; readonly method: 'POST'; readonly path: null };

/** Reads `POST /api/orders/{id}/cancel`, or `adapter`. */
export const parseCompensate = (raw: string): Parsed<CompensateTemplate> => {
  if (raw.trim() === 'adapter') return { ok: true, value: { to: 'adapter', method: 'POST', path: null } };
  const found = /^([A-Z-]+)\s+(\S+)$/.exec(raw.trim());
  if (found === null || !isMethod(found[1] ?? '')) return bad(COMPENSATE);
  const path = parsePathTemplate(found[2] ?? '');
  return path.ok ? { ok: true, value: { to: 'legacy', method: found[1] ?? '', path: path.value } } : path;
};
