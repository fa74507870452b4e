import { HEADERS } from '@banyan/contracts/vocabulary.ts';

/**
 * What a copy must not carry: conditions and ranges, which would make the sides answer different questions; what belongs to the client's
 * connection or to a body that the copy does not have.
 */
const LEFT_OUT = new Set(
  `if-match if-none-match if-modified-since if-unmodified-since if-range range connection keep-alive proxy-connection te trailer transfer-encoding upgrade content-length expect ${HEADERS.shadow} ${HEADERS.dryRun}`.split(
    ' ',
  ),
);

/** Names as clients spell them, told apart once: most requests come with the same ten. */
const leftOut = new Map<string, boolean>();
const MAX_NAMES = 1_000;

const isLeftOut = (name: string): boolean => {
  const known = leftOut.get(name);
  if (known !== undefined) return known;
  const left = LEFT_OUT.has(name.toLowerCase());
  if (leftOut.size < MAX_NAMES && name.length <= 64) leftOut.set(name, left);
  return left;
};

/** Is it this field? `lowerName` is in lower case. */
const isField = (name: string, lowerName: string): boolean =>
  name.length === lowerName.length && (name === lowerName || name.toLowerCase() === lowerName);

/** The headers of a copy: those of the request without what a copy must not carry, plus its mark, `banyan-shadow: 1`. Flat pairs, order kept. */
export const copyHeaders = (headers: readonly string[], cookies: 'pass' | 'drop', mark: string = HEADERS.shadow): string[] => {
  let named: Set<string> | null = null;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (!isField(headers[i]!, 'connection')) continue;
    named ??= new Set();
    for (const name of headers[i + 1]!.split(',')) named.add(name.trim().toLowerCase());
  }
  const out: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!;
    if (isLeftOut(name) || named?.has(name.toLowerCase()) || (cookies === 'drop' && isField(name, 'cookie'))) continue;
    out.push(name, headers[i + 1]!);
  }
  out.push(mark, '1');
  return out;
};

/** Decoded segments of a target's path without empty and dot segments; null when an escape is broken. */
const segmentsOf = (target: string): string[] | null => {
  const kept: string[] = [];
  for (const segment of (target.split(/[?#]/, 1)[0] ?? '').split('/')) {
    let decoded: string;
    try {
      decoded = decodeURIComponent(segment);
    } catch {
      return null;
    }
    if (decoded === '..') kept.pop();
    else if (decoded !== '' && decoded !== '.') kept.push(decoded);
  }
  return kept;
};

/** Glob over segments: `:name` and `*` = one, `**` = any number. Linear in pattern times path: a row of reachable positions per segment. */
const covers = (pattern: readonly string[], path: readonly string[]): boolean => {
  const close = (at: Set<number>): Set<number> => {
    for (const position of at) if (pattern[position] === '**') at.add(position + 1);
    return at;
  };
  let at = close(new Set([0]));
  for (const segment of path) {
    const next = new Set<number>();
    for (const position of at) {
      const want = pattern[position];
      if (want === '**') next.add(position);
      else if (want !== undefined && (want === '*' || want.startsWith(':') || want === segment)) next.add(position + 1);
    }
    at = close(next);
  }
  return at.has(pattern.length);
};

/** Must this query never be mirrored? `patterns` as in routes, optionally after a method. A path that cannot be decoded is unsafe as soon as there is a pattern. */
export const isUnsafeQuery = (patterns: readonly string[], method: string, target: string): boolean => {
  if (patterns.length === 0) return false;
  const path = segmentsOf(target);
  if (path === null) return true;
  return patterns.some((pattern) => {
    const [, verb, glob = ''] = /^(?:([A-Z]+)\s+)?(.*)$/.exec(pattern) ?? [];
    return (
      (verb === undefined || verb === method) &&
      covers(
        glob.split('/').filter((segment) => segment !== ''),
        path,
      )
    );
  });
};
