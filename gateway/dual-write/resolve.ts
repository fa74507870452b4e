import { jsonPath } from '../core/json-path.ts';
import type { RouteWrites } from './route-writes.ts';
import { jsonPart, jsonValue } from './stored.ts';

/** What the upstream says of a command: it was applied, it was not, or this answer does not tell. */
export type Finding =
  | { readonly kind: 'found'; readonly body: string | null }
  | { readonly kind: 'absent' }
  | { readonly kind: 'unclear'; readonly why: string };

const isEmpty = (value: unknown): boolean =>
  value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0);

/** Reads the answer to a `resolve` request. Pure. */
export const readFinding = (
  resolve: Pick<NonNullable<RouteWrites['resolve']>, 'applied' | 'body'>,
  status: number,
  text: string,
): Finding => {
  if (status === 404 || status === 410) return { kind: 'absent' };
  if (status < 200 || status > 299) return { kind: 'unclear', why: `the upstream answered ${status} when asked` };
  if (resolve.applied === 'status') return { kind: 'found', body: null };
  const value = text.trim() === '' ? null : jsonValue(text);
  if (value === undefined) return { kind: 'unclear', why: 'the upstream answered no JSON when asked' };
  if (isEmpty(jsonPath(resolve.applied)(value))) return { kind: 'absent' };
  return { kind: 'found', body: resolve.body === null ? null : (jsonPart(text, jsonPath(resolve.body)) ?? null) };
};
