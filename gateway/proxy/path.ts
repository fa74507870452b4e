const UNRESERVED = /[A-Za-z0-9\-._~]/;

/**
 * The copy of a path that routes are matched on: unreserved characters decoded, other escapes in upper case, `//` and dot segments
 * collapsed (RFC 3986 6.2.2). The path that is forwarded keeps its bytes. Null when an escape is broken or is not UTF-8.
 */
export const normalisePath = (raw: string): string | null => {
  if (!/%|\/\/|\/\./.test(raw)) return raw;
  let path = raw;
  if (raw.includes('%')) {
    try {
      decodeURIComponent(raw);
    } catch {
      return null;
    }
    path = raw.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => {
      const character = String.fromCharCode(Number.parseInt(hex, 16));
      return UNRESERVED.test(character) ? character : `%${hex.toUpperCase()}`;
    });
  }
  const kept: string[] = [];
  const segments = path.split('/');
  for (const segment of segments) {
    if (segment === '..') kept.pop();
    else if (segment !== '' && segment !== '.') kept.push(segment);
  }
  const last = segments.at(-1);
  const open = last === '' || last === '.' || last === '..';
  return `/${kept.join('/')}${open && kept.length > 0 ? '/' : ''}`;
};
