import { canonicalNumber, sameNumber, withinTolerance } from './decimal.ts';
import { JsonNumber, JsonObject, type JsonValue } from './json.ts';
import { placesOf, sameKeys } from './member-order.ts';
import { type Cursor, descend } from './path.ts';
import type { BodyRule } from './rules.ts';

/** The rule of one kind that names the place of a cursor. */
export const ruleOf = <K extends BodyRule['kind']>(cursor: Cursor<BodyRule>, kind: K): Extract<BodyRule, { kind: K }> | undefined =>
  cursor.here.length === 0 ? undefined : cursor.here.find((rule): rule is Extract<BodyRule, { kind: K }> => rule.kind === kind);

/** Gives a value a number that equal values share. */
export type Identify = (value: JsonValue, cursor: Cursor<BodyRule>) => number;

/**
 * Numbers values of two documents so that equal ones, under the rules, get the same number: member order and the spelling of numbers
 * do not matter, ignored places are left out, and numbers with a tolerance count as equal (so equals are still walked where rules apply).
 * Every node is looked at once however often it is asked for: without that a deep chain of arrays would cost its size times its depth.
 */
export const createIdentify = (): Identify => {
  const ids = new Map<string, number>();
  const seen = new Map<JsonValue, number>();
  const intern = (text: string): number => {
    const known = ids.get(text);
    if (known !== undefined) return known;
    ids.set(text, ids.size);
    return ids.size - 1;
  };
  const identify: Identify = (value, cursor) => {
    if (ruleOf(cursor, 'ignore')) return intern('~');
    if (value === null || typeof value === 'boolean') return intern(String(value));
    if (typeof value === 'string') return intern(`"${value}`);
    if (value instanceof JsonNumber) return intern(ruleOf(cursor, 'tolerance') ? '#' : `n${canonicalNumber(value.raw)}`);
    const known = seen.get(value);
    if (known !== undefined) return known;
    const id = intern(value instanceof JsonObject ? spelledObject(value, cursor) : spelledArray(value, cursor));
    seen.set(value, id);
    return id;
  };
  const spelledObject = (value: JsonObject, cursor: Cursor<BodyRule>): string => {
    const members: [key: number, value: number][] = [];
    for (let i = 0; i < value.keys.length; i++) {
      const below = descend(cursor, value.keys[i]!);
      if (!ruleOf(below, 'ignore')) members.push([intern(`"${value.keys[i]}`), identify(value.values[i]!, below)]);
    }
    // The sort is stable: repeats of a key keep their order.
    return `{${members.sort((a, b) => a[0] - b[0]).join()}`;
  };
  const spelledArray = (value: readonly JsonValue[], cursor: Cursor<BodyRule>): string => {
    const items = value.map((item, i) => identify(item, descend(cursor, i)));
    const rule = ruleOf(cursor, 'array');
    if (!rule) return `[${items.join()}`;
    const list = rule.as === 'set' ? [...new Set(items)] : items;
    return `[${list.sort((a, b) => a - b).join()}`;
  };
  return identify;
};

/** Equality of two small objects whose members stand in another order; null when keys repeat or differ, which hashing has to settle. */
const equalMembers = (a: JsonObject, b: JsonObject, cursor: Cursor<BodyRule>, identify: Identify): boolean | null => {
  const places = placesOf(a, b);
  if (places === null) return null;
  for (let i = 0; i < places.length; i++) {
    const [value, other] = [a.values[i]!, b.values[places[i]!]!];
    if (value !== other && !equal(value, other, descend(cursor, a.keys[i]!), identify)) return false;
  }
  return true;
};

/** Are two values equal under the rules? Stops at the first difference. Arrays with a rule of their own are told apart by number. */
export const equal = (a: JsonValue, b: JsonValue, cursor: Cursor<BodyRule>, identify: Identify): boolean => {
  if (a === b || ruleOf(cursor, 'ignore')) return true;
  if (a instanceof JsonNumber)
    return (
      b instanceof JsonNumber &&
      (sameNumber(a.raw, b.raw) || cursor.here.some((rule) => rule.kind === 'tolerance' && withinTolerance(a.raw, b.raw, rule)))
    );
  if (a instanceof JsonObject) {
    if (!(b instanceof JsonObject)) return false;
    if (sameKeys(a.keys, b.keys)) {
      for (let i = 0; i < a.values.length; i++)
        if (a.values[i] !== b.values[i] && !equal(a.values[i]!, b.values[i]!, descend(cursor, a.keys[i]!), identify)) return false;
      return true;
    }
    return equalMembers(a, b, cursor, identify) ?? identify(a, cursor) === identify(b, cursor);
  }
  if (!Array.isArray(a) || !Array.isArray(b)) return false;
  if (ruleOf(cursor, 'array')) return identify(a, cursor) === identify(b, cursor);
  return a.length === b.length && a.every((item, i) => equal(item, b[i]!, descend(cursor, i), identify));
};
