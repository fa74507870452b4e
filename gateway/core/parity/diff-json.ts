import type { DifferenceKind } from '@banyan/contracts/vocabulary.ts';
import { sameNumber, withinTolerance } from './decimal.ts';
import { keptPairs } from './edit-script.ts';
import { createIdentify, equal, type Identify, ruleOf } from './fingerprint.ts';
import { JsonNumber, JsonObject, type JsonValue, typeOfJson } from './json.ts';
import { placesOf, sameKeys } from './member-order.ts';
import { type Cursor, descend, type Path } from './path.ts';
import type { BodyRule } from './rules.ts';

/** Takes one difference; a side that is undefined is absent. `excuse` names the rule that ignores the place. */
export type Sink = (
  path: Path,
  kind: DifferenceKind,
  legacy: JsonValue | undefined,
  extracted: JsonValue | undefined,
  excuse: string | undefined,
) => void;

type Place = {
  readonly path: Path;
  readonly cursor: Cursor<BodyRule>;
  readonly excuse: string | undefined;
  readonly depth: number;
  readonly identify: Identify;
};

const below = (place: Place, key: string | number): Place => {
  const cursor = descend(place.cursor, key);
  return {
    path: { parent: place.path, key },
    cursor,
    excuse: place.excuse ?? ruleOf(cursor, 'ignore')?.name,
    depth: place.depth + 1,
    identify: place.identify,
  };
};

/** Reports everywhere two documents differ under the rules. Pure but for the sink; recursion is bounded by the parser's depth limit. */
export const diffJson = (legacy: JsonValue, extracted: JsonValue, rules: Cursor<BodyRule>, sink: Sink): void =>
  walk(legacy, extracted, { path: null, cursor: rules, excuse: ruleOf(rules, 'ignore')?.name, depth: 0, identify: createIdentify() }, sink);

const walk = (a: JsonValue, b: JsonValue, place: Place, sink: Sink): void => {
  if (a === b) return;
  if (a instanceof JsonNumber && b instanceof JsonNumber) {
    if (sameNumber(a.raw, b.raw)) return;
    if (place.cursor.here.some((rule) => rule.kind === 'tolerance' && withinTolerance(a.raw, b.raw, rule))) return;
    sink(place.path, 'value', a, b, place.excuse);
  } else if (a instanceof JsonObject && b instanceof JsonObject) walkObjects(a, b, place, sink);
  else if (Array.isArray(a) && Array.isArray(b)) walkArrays(a, b, place, sink);
  else sink(place.path, typeOfJson(a) === typeOfJson(b) ? 'value' : 'type', a, b, place.excuse);
};

/** Without a look at rules or below: the same token or text. Most members are, and need no place of their own. */
const plainlySame = (a: JsonValue, b: JsonValue): boolean =>
  a === b || (a instanceof JsonNumber && b instanceof JsonNumber && a.raw === b.raw);

const grouped = (object: JsonObject): Map<string, JsonValue[]> => {
  const groups = new Map<string, JsonValue[]>();
  for (let i = 0; i < object.keys.length; i++) {
    const group = groups.get(object.keys[i]!);
    if (group) group.push(object.values[i]!);
    else groups.set(object.keys[i]!, [object.values[i]!]);
  }
  return groups;
};

const oneOrAll = (values: readonly JsonValue[]): JsonValue => (values.length === 1 ? values[0]! : values);

const walkObjects = (a: JsonObject, b: JsonObject, place: Place, sink: Sink): void => {
  if (sameKeys(a.keys, b.keys)) {
    for (let i = 0; i < a.keys.length; i++)
      if (!plainlySame(a.values[i]!, b.values[i]!)) walk(a.values[i]!, b.values[i]!, below(place, a.keys[i]!), sink);
    return;
  }
  const places = placesOf(a, b);
  if (places !== null) {
    for (let i = 0; i < places.length; i++) {
      const [value, other] = [a.values[i]!, b.values[places[i]!]!];
      if (!plainlySame(value, other)) walk(value, other, below(place, a.keys[i]!), sink);
    }
    return;
  }
  const [ours, theirs] = [grouped(a), grouped(b)];
  for (const [key, values] of ours) {
    const others = theirs.get(key);
    const here = below(place, key);
    if (!others) sink(here.path, 'missing', values.at(-1)!, undefined, here.excuse);
    // A repeated key means different things to different parsers, so a different number of repeats is a difference even if the last ones agree.
    else if (others.length !== values.length) sink(here.path, 'duplicate-key', oneOrAll(values), oneOrAll(others), here.excuse);
    else for (let i = 0; i < values.length; i++) walk(values[i]!, others[i]!, here, sink);
  }
  for (const [key, values] of theirs) {
    if (ours.has(key)) continue;
    const here = below(place, key);
    sink(here.path, 'extra', undefined, values.at(-1)!, here.excuse);
  }
};

const walkArrays = (a: readonly JsonValue[], b: readonly JsonValue[], place: Place, sink: Sink): void => {
  const rule = ruleOf(place.cursor, 'array');
  if (rule?.by) walkKeyed(a, b, rule.by, place, sink);
  else if (rule?.as) walkUnordered(a, b, rule.as === 'set', place, sink);
  else walkOrdered(a, b, place, sink);
};

const missing = (a: readonly JsonValue[], i: number, place: Place, sink: Sink): void => {
  const here = below(place, i);
  sink(here.path, 'missing', a[i]!, undefined, here.excuse);
};
const extra = (b: readonly JsonValue[], i: number, place: Place, sink: Sink): void => {
  const here = below(place, i);
  sink(here.path, 'extra', undefined, b[i]!, here.excuse);
};

/** Deeper than this, arrays are told apart by number: comparing every level from scratch would cost size times depth. */
const DEEP = 32;

/** In order, with a minimal edit: an element put in at the head of a thousand is one `extra`, not a thousand values. */
const walkOrdered = (a: readonly JsonValue[], b: readonly JsonValue[], place: Place, sink: Sink): void => {
  const alike = (x: number, y: number): boolean => {
    const cursor = descend(place.cursor, x);
    return place.depth > DEEP
      ? place.identify(a[x]!, cursor) === place.identify(b[y]!, cursor)
      : equal(a[x]!, b[y]!, cursor, place.identify);
  };
  // Equal elements still hold noise where rules apply.
  const pair = (x: number, y: number): void => {
    if (place.cursor.below.length > 0) walk(a[x]!, b[y]!, below(place, x), sink);
  };
  const shared = Math.min(a.length, b.length);
  let head = 0;
  while (head < shared && alike(head, head)) pair(head, head++);
  let tail = 0;
  while (tail < shared - head && alike(a.length - 1 - tail, b.length - 1 - tail)) tail++;
  walkMiddle(a, b, head, a.length - tail, b.length - tail, place, sink);
  for (let i = tail; i > 0; i--) pair(a.length - i, b.length - i);
};

/** What is left of two ordered arrays between their equal heads and tails: a[from..aEnd) and b[from..bEnd). */
const walkMiddle = (
  a: readonly JsonValue[],
  b: readonly JsonValue[],
  from: number,
  aEnd: number,
  bEnd: number,
  place: Place,
  sink: Sink,
): void => {
  let [x, y] = [from, from];
  // Elements that changed are paired in order; what is left over came or went.
  const gap = (xEnd: number, yEnd: number): void => {
    while (x < xEnd && y < yEnd) walk(a[x]!, b[y++]!, below(place, x++), sink);
    while (x < xEnd) missing(a, x++, place, sink);
    while (y < yEnd) extra(b, y++, place, sink);
  };
  if (aEnd - from <= 1 || bEnd - from <= 1) {
    gap(aEnd, bEnd);
    return;
  }
  const idsOf = (list: readonly JsonValue[], end: number): number[] =>
    list.slice(from, end).map((value, i) => place.identify(value, below(place, from + i).cursor));
  const ours = idsOf(a, aEnd);
  const theirs = idsOf(b, bEnd);
  if (!sameList(ours, theirs) && sameList(sorted(ours), sorted(theirs))) {
    sink(place.path, 'order', a, b, place.excuse);
    return;
  }
  const kept = keptPairs(ours, theirs);
  if (kept === null) {
    const shared = Math.min(aEnd, bEnd);
    gap(shared, shared);
    if (a.length !== b.length) sink(place.path, 'length', new JsonNumber(String(a.length)), new JsonNumber(String(b.length)), place.excuse);
    return;
  }
  for (const { a: ka, b: kb } of kept) {
    gap(from + ka, from + kb);
    if (place.cursor.below.length > 0) walk(a[x]!, b[y]!, below(place, x), sink);
    [x, y] = [x + 1, y + 1];
  }
  gap(aEnd, bEnd);
};

const sameList = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((value, i) => value === b[i]);
const sorted = (list: readonly number[]): number[] => [...list].sort((x, y) => x - y);

const memberAt = (value: JsonValue, steps: readonly string[]): JsonValue | undefined => {
  let here: JsonValue | undefined = value;
  for (const step of steps) {
    if (!(here instanceof JsonObject)) return undefined;
    const at: number = here.keys.lastIndexOf(step);
    here = at < 0 ? undefined : here.values[at];
  }
  return here;
};

const NO_RULES: Cursor<BodyRule> = { here: [], below: [] };

/** Where each id stands, last index first, so that `pop` gives them in order. */
const lastFirst = (ids: readonly number[]): Map<number, number[]> => {
  const places = new Map<number, number[]>();
  for (let i = ids.length - 1; i >= 0; i--) {
    const list = places.get(ids[i]!);
    if (list) list.push(i);
    else places.set(ids[i]!, [i]);
  }
  return places;
};

/** Elements meet by the value of a member; those without it meet in order. A key that repeats meets its repeats in order. */
const walkKeyed = (a: readonly JsonValue[], b: readonly JsonValue[], by: readonly string[], place: Place, sink: Sink): void => {
  const identifyKey = createIdentify();
  const keyOf = (value: JsonValue): number => {
    const key = memberAt(value, by);
    return key === undefined ? -1 : identifyKey(key, NO_RULES);
  };
  const waiting = lastFirst(b.map(keyOf));
  const met = new Set<number>();
  for (let i = 0; i < a.length; i++) {
    const partner = waiting.get(keyOf(a[i]!))?.pop();
    if (partner === undefined) missing(a, i, place, sink);
    else {
      met.add(partner);
      walk(a[i]!, b[partner]!, below(place, i), sink);
    }
  }
  for (let i = 0; i < b.length; i++) if (!met.has(i)) extra(b, i, place, sink);
};

/** Without order. As a set repeats do not count; as a multiset [1,1,2] and [1,2,2] differ in one `missing` and one `extra`. */
const walkUnordered = (a: readonly JsonValue[], b: readonly JsonValue[], asSet: boolean, place: Place, sink: Sink): void => {
  const idOf = (value: JsonValue, i: number): number => place.identify(value, below(place, i).cursor);
  const theirs = b.map(idOf);
  const ours = a.map(idOf);
  const waiting = lastFirst(theirs);
  const met = new Set<number>();
  const first = new Set<number>();
  for (let i = 0; i < a.length; i++) {
    const id = ours[i]!;
    if (asSet && first.has(id)) continue;
    first.add(id);
    const partner = waiting.get(id)?.pop();
    if (partner === undefined) {
      missing(a, i, place, sink);
      continue;
    }
    met.add(partner);
    if (place.cursor.below.length > 0) walk(a[i]!, b[partner]!, below(place, i), sink);
  }
  const told = new Set<number>();
  for (let i = 0; i < b.length; i++) {
    const id = theirs[i]!;
    if (met.has(i) || (asSet && (first.has(id) || told.has(id)))) continue;
    told.add(id);
    extra(b, i, place, sink);
  }
};
