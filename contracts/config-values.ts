/** How values are written in configuration files: durations, sizes, shares, variables. Pure; nothing here throws on user input. */

/** A value, or what should have stood there instead (`a duration such as …`). */
export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly expected: string };

const good = <T>(value: T): Parsed<T> => ({ ok: true, value });
const bad = (expected: string): { readonly ok: false; readonly expected: string } => ({ ok: false, expected });

export const DURATION = 'a duration such as 250ms, 5s, 2m, 1h or 7d';
export const SIZE = 'a size such as 64KiB, 1MiB or a number of bytes';
export const SHARE = 'a share from 0% to 100%, such as 12.5%';

const MILLISECONDS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const BYTES: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  kb: 1_000,
  mb: 1_000_000,
  gb: 1_000_000_000,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** `250ms 5s 2m 1h 7d` (also `1.5s`) to whole milliseconds. A bare number says no unit and is refused, except 0. At most 365 days. */
export const parseDuration = (raw: unknown): Parsed<number> => {
  if (raw === 0 || raw === '0') return good(0);
  const found = typeof raw === 'string' ? /^(\d{1,12}(?:\.\d{1,6})?)\s?(ms|s|m|h|d)$/.exec(raw.trim()) : null;
  if (found === null) return bad(DURATION);
  const value = Math.round(Number(found[1]) * (MILLISECONDS[found[2] ?? ''] ?? Number.NaN));
  return value <= 365 * 86_400_000 ? good(value) : bad(`${DURATION}, at most 365d`);
};

/** `64KiB`, `1MiB`, `10MB`, `512` to whole bytes. */
export const parseSize = (raw: unknown): Parsed<number> => {
  const text = typeof raw === 'number' ? String(raw) : typeof raw === 'string' ? raw.trim() : '';
  const found = /^(\d{1,15}(?:\.\d{1,6})?)\s?([a-z]{0,3})$/i.exec(text);
  const unit = found === null ? undefined : BYTES[(found[2] ?? '').toLowerCase()];
  if (found === null || unit === undefined) return bad(SIZE);
  const value = Number(found[1]) * unit;
  return Number.isSafeInteger(Math.round(value)) && (unit > 1 || Number.isInteger(value)) ? good(Math.round(value)) : bad(SIZE);
};

/** `12.5%` to basis points 0..10000. A bare number could mean a percentage or a fraction and is refused, except 0. At most two decimals: a basis point is the resolution. */
export const parseShare = (raw: unknown): Parsed<number> => {
  if (raw === 0 || raw === '0') return good(0);
  const found = typeof raw === 'string' ? /^(\d{1,3}(?:\.\d{1,2})?)\s?%$/.exec(raw.trim()) : null;
  if (found === null) return bad(SHARE);
  const value = Math.round(Number(found[1]) * 100);
  return value <= 10_000 ? good(value) : bad(SHARE);
};

/** `10`, `12.5` or `12.5%` to basis points 0..10000, where the key's own name says that it is a percentage. */
export const parsePercent = (raw: unknown): Parsed<number> => {
  const text = typeof raw === 'number' ? String(raw) : typeof raw === 'string' ? raw.trim() : '';
  const share = parseShare(text.endsWith('%') ? text : `${text}%`);
  return share.ok ? share : bad('a percentage from 0 to 100, such as 12.5');
};

/** `HOST:PORT` or `[IPV6]:PORT`; port 0 lets the system choose. */
export const parseAddress = (raw: unknown): Parsed<{ readonly host: string; readonly port: number }> => {
  const expected = 'HOST:PORT such as 127.0.0.1:8080 or [::1]:8080';
  const found = typeof raw === 'string' ? /^(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9._-]{1,253})):(\d{1,5})$/i.exec(raw.trim()) : null;
  if (found === null) return bad(expected);
  const port = Number(found[3]);
  return port <= 65_535 ? good({ host: found[1] ?? found[2] ?? '', port }) : bad(`${expected}, with a port from 0 to 65535`);
};

/** What variables are read from. `file` gives a file's text or undefined when it cannot be read. */
export type Sources = { readonly env: Readonly<Record<string, string | undefined>>; readonly file: (path: string) => string | undefined };

/** A variable that could not be expanded; `path` leads from the root of the document to the scalar. */
export type ExpansionFault = { readonly path: readonly (string | number)[]; readonly message: string; readonly expected: string };

/** Longest text that one scalar may grow to by expansion. */
const MAX_EXPANDED = 1_048_576;
/** Bounds of a whole document, also against one that refers to itself. */
const MAX_DEPTH = 64;
const MAX_NODES = 200_000;
const TOO_LARGE = 'the document is nested too deeply or too large';

/**
 * Expands `${VAR}`, `${VAR:-default}` (also when VAR is empty), `${file:PATH}` (trailing line ends dropped) and `$$` in one scalar.
 * What a variable holds is not expanded again. A `$` before anything else stands for itself, so JSONPath (`$.total`) needs no escape.
 */
export const expandText = (
  text: string,
  from: Sources,
): { readonly text: string; readonly faults: readonly Omit<ExpansionFault, 'path'>[] } => {
  const faults: Omit<ExpansionFault, 'path'>[] = [];
  const fail = (message: string, expected: string): string => {
    faults.push({ message, expected });
    return '';
  };
  const variable = (body: string): string => {
    if (body.startsWith('file:')) {
      const path = body.slice(5).trim();
      if (path === '') return fail('the name of the file is missing', 'file:PATH inside the braces');
      const read = from.file(path);
      return read === undefined ? fail(`the file ${path} cannot be read`, 'a readable file') : read.replace(/[\r\n]+$/, '');
    }
    const found = /^([A-Za-z_][A-Za-z0-9_]*)(?::-([\s\S]*))?$/.exec(body);
    if (found === null)
      return fail(
        `\${${body.slice(0, 60)}} is not a variable`,
        'NAME, NAME:-default or file:PATH inside the braces, or $$ for a dollar sign',
      );
    const name = found[1] ?? '';
    const value = Object.hasOwn(from.env, name) ? from.env[name] : undefined;
    if (found[2] !== undefined) return value === undefined || value === '' ? found[2] : value;
    return value ?? fail(`the variable ${name} is not set`, `${name} in the environment, or \${${name}:-default}`);
  };
  const expanded = text.replace(/\$\$|\$\{([^}]*)(\}?)/g, (whole, body: string | undefined, close: string | undefined) => {
    if (whole === '$$') return '$';
    if (close === '') return fail('${ is never closed', 'a closing brace');
    return variable(body ?? '');
  });
  if (expanded.length > MAX_EXPANDED)
    return { text: '', faults: [{ message: 'the expanded text is longer than 1 MiB', expected: 'a shorter text' }] };
  return { text: expanded, faults };
};

/** Copies a parsed document with the variables in every string scalar (never in keys) expanded. Functions and other values pass as they are. */
export const expandScalars = (value: unknown, from: Sources): { readonly value: unknown; readonly faults: readonly ExpansionFault[] } => {
  const faults: ExpansionFault[] = [];
  let nodes = 0;
  const walk = (node: unknown, path: readonly (string | number)[]): unknown => {
    nodes += 1;
    if (nodes > MAX_NODES || path.length > MAX_DEPTH) {
      // Once is enough: a document that refers to itself would repeat it without end.
      if (!faults.some((fault) => fault.message === TOO_LARGE))
        faults.push({ path, message: TOO_LARGE, expected: `at most ${MAX_DEPTH} levels and ${MAX_NODES} values` });
      return null;
    }
    if (typeof node === 'string') {
      const result = expandText(node, from);
      for (const fault of result.faults) faults.push({ path, ...fault });
      return result.text;
    }
    if (Array.isArray(node)) return node.map((item, index) => (nodes > MAX_NODES ? null : walk(item, [...path, index])));
    if (node === null || typeof node !== 'object') return node;
    const copy: Record<string, unknown> = {};
    // A plain assignment to `__proto__` would change the copy's prototype instead of adding the key.
    for (const [key, item] of Object.entries(node))
      Object.defineProperty(copy, key, { value: walk(item, [...path, key]), enumerable: true, writable: true, configurable: true });
    return copy;
  };
  return { value: walk(value, []), faults };
};
