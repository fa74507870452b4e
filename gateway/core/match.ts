import type { Operation, Stage } from '@banyan/contracts/vocabulary.ts';

/** One method-and-path pattern, owned by one context. `R` is whatever else the caller keeps with a route. */
export type RoutePattern<R> = {
  readonly context: string;
  /** `/api/orders/:id`, `**` = zero or more segments. */
  readonly path: string;
  /** Upper case; null = every method. */
  readonly methods: readonly string[] | null;
  /** Absent = GET and HEAD are queries, the rest commands. */
  readonly operation?: Operation | undefined;
  /** Caps the stage for this route alone. */
  readonly maxStage?: Stage | undefined;
  readonly rest: R;
};

export type Match<R> =
  | {
      readonly kind: 'route';
      readonly route: RoutePattern<R>;
      readonly operation: Operation;
      readonly params: Readonly<Record<string, string>>;
    }
  /** The path is owned, the method is named by no route: `else:` of the context decides. */
  | { readonly kind: 'unowned-method'; readonly context: string; readonly path: string }
  | { readonly kind: 'none' };

export type Routes<R> = { match(method: string, path: string): Match<R> };

/** Where a parameter stands: counted from the front, or, behind `**`, from the end. */
type Place = { readonly name: string; readonly index: number; readonly fromEnd: boolean };

/** A route with all that a match needs of it in one place: where there are thousands, each further object is memory that is in no cache. */
type Leaf<R> = {
  readonly route: RoutePattern<R>;
  readonly methods: readonly string[] | null;
  readonly places: readonly Place[];
  /** Of the same path, for other methods. */
  next: Leaf<R> | null;
};

type Node<R> = {
  /** null = none. */
  literals: Map<string, Node<R>> | null;
  param: Node<R> | null;
  rest: Node<R> | null;
  /** In the order of the configuration. */
  first: Leaf<R> | null;
};

const node = <R>(): Node<R> => ({ literals: null, param: null, rest: null, first: null });

/** A trailing slash is dropped: frameworks treat both spellings alike, so a command must not slip past its ledger by one. */
const segmentsOf = (path: string): string[] => {
  const segments = path.split('/');
  segments.shift();
  if (segments.length > 0 && segments.at(-1) === '') segments.pop();
  return segments;
};

const operationOf = (method: string): Operation => (method === 'GET' || method === 'HEAD' ? 'query' : 'command');

const NONE = { kind: 'none' } as const;

/** @param named makes one string of all that are equal: a lookup reads the key it finds, and 200 contexts may have routes of the same names */
const child = <R>(at: Node<R>, segment: string, named: (segment: string) => string): Node<R> => {
  if (segment === '**') {
    at.rest ??= node();
    return at.rest;
  }
  if (segment.startsWith(':')) {
    at.param ??= node();
    return at.param;
  }
  at.literals ??= new Map();
  let next = at.literals.get(segment);
  if (!next) {
    next = node();
    at.literals.set(named(segment), next);
  }
  return next;
};

const add = <R>(at: Node<R>, leaf: Leaf<R>): void => {
  if (at.first === null) {
    at.first = leaf;
    return;
  }
  let last = at.first;
  while (last.next !== null) last = last.next;
  last.next = leaf;
};

const placesOf = (pattern: string): readonly Place[] => {
  const parts = segmentsOf(pattern);
  const stars = parts.indexOf('**');
  return parts.flatMap((part, i) => {
    if (!part.startsWith(':')) return [];
    const fromEnd = stars >= 0 && i > stars;
    return [{ name: part.slice(1), index: fromEnd ? parts.length - i : i, fromEnd }];
  });
};

const NO_PARAMS: Readonly<Record<string, string>> = {};

const paramsAt = (places: readonly Place[], segments: readonly string[]): Readonly<Record<string, string>> => {
  if (places.length === 0) return NO_PARAMS;
  const params: Record<string, string> = {};
  for (const { name, index, fromEnd } of places) params[name] = segments[fromEnd ? segments.length - index : index] ?? '';
  return params;
};

/**
 * Compiles patterns into a trie. The most specific pattern that has the method wins: literal before parameter before `**`, segment by segment.
 * `path` must be the normalised copy (DESIGN.md section 4). Cost grows with the number of segments, not of routes.
 */
export const compileRoutes = <R>(patterns: readonly RoutePattern<R>[]): Routes<R> => {
  const root = node<R>();
  /** Most routes have the same few lists: they share them. */
  const lists = new Map<string, unknown>();
  const shared = <T>(list: T): T => {
    const key = JSON.stringify(list);
    if (!lists.has(key)) lists.set(key, list);
    return lists.get(key) as T;
  };
  for (const pattern of patterns) {
    let at = root;
    for (const segment of segmentsOf(pattern.path)) at = child(at, segment, shared);
    add(at, { route: pattern, methods: shared(pattern.methods), places: shared(placesOf(pattern.path)), next: null });
  }
  const empty = patterns.length === 0;

  return {
    match(method, path) {
      if (empty) return NONE;
      const segments = segmentsOf(path);
      let owned: RoutePattern<R> | null = null;

      const pick = (at: Node<R>): Leaf<R> | null => {
        for (let leaf = at.first; leaf !== null; leaf = leaf.next) {
          if (leaf.methods === null || leaf.methods.includes(method)) return leaf;
          owned ??= leaf.route;
        }
        return null;
      };
      const walk = (at: Node<R>, i: number): Leaf<R> | null => {
        if (i === segments.length) {
          const found = pick(at);
          if (found) return found;
        } else {
          const literal = at.literals?.get(segments[i]!);
          const byLiteral = literal && walk(literal, i + 1);
          if (byLiteral) return byLiteral;
          const byParam = at.param && segments[i] !== '' ? walk(at.param, i + 1) : null;
          if (byParam) return byParam;
        }
        if (at.rest) {
          const last = at.rest.literals === null && !at.rest.param && !at.rest.rest;
          if (last) return pick(at.rest);
          for (let j = i; j <= segments.length; j++) {
            const byRest = walk(at.rest, j);
            if (byRest) return byRest;
          }
        }
        return null;
      };

      const leaf = walk(root, 0);
      if (leaf)
        return {
          kind: 'route',
          route: leaf.route,
          operation: leaf.route.operation ?? operationOf(method),
          params: paramsAt(leaf.places, segments),
        };
      const unowned = owned as RoutePattern<R> | null;
      return unowned ? { kind: 'unowned-method', context: unowned.context, path: unowned.path } : NONE;
    },
  };
};
