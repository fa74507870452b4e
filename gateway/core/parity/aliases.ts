import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import { JsonNumber, JsonObject, type JsonValue, parseJson, spelled } from './json.ts';
import { charsetOf, classOf, decodeText, mediaTypeOf } from './media.ts';
import { type Difference, headerValues, type Noise, type Observation, type Verdict } from './observation.ts';

/** The name under which differences between aliases are counted. */
export const ALIAS_RULE = 'alias';

/** The ids under which the two sides know one entity. */
export type Alias = {
  /** What kind of entity it is, one word in lower case without plural: `order` for `/orders/17`, `orderId` and the like; '' = not told. */
  readonly word: string;
  readonly legacy: string;
  readonly extracted: string;
};

/** Ids that each side mints for the same entity. */
export type Aliases = {
  /**
   * Looks at both answers to one command that created something: what stands at the same place under a name such as `id` is the same entity, and so is
   * the last segment of `Location`. Gives what it did not know before. @param target of the command
   */
  readonly learn: (target: string, legacy: Observation, extracted: Observation) => Alias[];
  /** Takes over what somebody else has learned. Newer ones win. */
  readonly remember: (alias: Alias) => void;
  /** A target as side `to` knows it: path segments, and values of parameters named like ids, that are the other side's ids become its own. */
  readonly target: (target: string, to: Upstream) => string;
  /** A JSON body as side `to` knows it; any other body stays. */
  readonly body: (body: Uint8Array, contentType: string, to: Upstream) => Uint8Array;
  /** Sets differences between aliases aside as noise. */
  readonly excuse: (verdict: Verdict) => Verdict;
  readonly size: () => number;
};

/** So many ids are remembered; the oldest go first. */
export const MAX_ALIASES = 100_000;
const MAX_ID = 128;
const ID_NAME = /^(?:.*[_-])?(?:ids?|uuids?|guids?|ulids?|refs?|reference|number|key)$|(?:Id|ID|Uuid|Ref)s?$/;
/** Objects with more members are maps of data, and no answer to a command that creates something. */
const MAX_MEMBERS = 1_000;
/** Entities of other kinds may well have the same short number; nothing else is as short. */
const SHORT_NUMBER = /^\d{1,9}$/;

const scalar = (value: JsonValue | undefined): string | null => {
  const text = value instanceof JsonNumber ? value.raw : typeof value === 'string' ? value : null;
  return text === null || text === '' || text.length > MAX_ID ? null : text;
};

const documentOf = (observation: Observation): JsonValue | undefined => {
  const { body } = observation;
  if (body === null) return undefined;
  const media = mediaTypeOf(observation);
  const kind = classOf(media, body);
  if (kind !== 'json') return undefined;
  const parsed = parseJson(decodeText(body, charsetOf(media, kind, body)).text);
  return parsed.ok ? parsed.value : undefined;
};

const segmentsOf = (target: string): string[] => (target.split(/[?#]/, 1)[0] ?? '').split('/').filter((part) => part !== '');

const locationOf = (observation: Observation): { readonly id: string; readonly word: string } | null => {
  const segments = segmentsOf((headerValues(observation, 'location')[0] ?? '').replace(/^[a-z][a-z0-9+.-]*:\/\/[^/]*/i, ''));
  const id = segments.at(-1);
  return id === undefined || id.length > MAX_ID ? null : { id, word: wordOf(segments.at(-2) ?? '') };
};

/** `orders`, `order_ids` and `orderId` speak of the same things. */
const wordOf = (name: string): string =>
  name
    .replace(/[_-]?(?:ids?|uuids?|guids?|ulids?|refs?|reference|number|key)$|(?:Id|ID|Uuid|Ref)s?$/, '')
    .replace(/[^A-Za-z0-9]/g, '')
    .toLowerCase()
    .replace(/ies$/, 'y')
    .replace(/(?<!s)s$/, '');

type Known = { readonly other: string; readonly alias: Alias };

/** What one side's ids are called on the other. */
class Directory {
  /** By word and id. */
  readonly #exact = new Map<string, Known>();
  /** By id alone; null = several words use it. */
  readonly #any = new Map<string, Known | null>();

  set(word: string, id: string, known: Known): void {
    this.#exact.set(`${word} ${id}`, known);
    const before = this.#any.get(id);
    this.#any.set(id, before === undefined || before?.alias.word === word ? known : null);
  }

  delete(word: string, id: string, alias: Alias): void {
    if (this.#exact.get(`${word} ${id}`)?.alias === alias) this.#exact.delete(`${word} ${id}`);
    if (this.#any.get(id)?.alias === alias) this.#any.delete(id);
  }

  /** @param word null = the place does not say what it speaks of */
  find(word: string | null, id: string): string | undefined {
    const exact = word === null ? undefined : this.#exact.get(`${word} ${id}`);
    if (exact) return exact.other;
    const any = this.#any.get(id);
    // a short number beside another word is another entity
    if (!any || (word !== null && any.alias.word !== '' && SHORT_NUMBER.test(id))) return undefined;
    return any.other;
  }
}

/**
 * Remembers ids; one for each context or run, bounded.
 * @param secret is the value of a member of this name none that may be kept?
 */
export const createAliases = (secret: (name: string) => boolean = () => false): Aliases => {
  const aliases = new Map<string, Alias>();
  const directories = { legacy: new Directory(), extracted: new Directory() };
  const keyOf = ({ word, legacy }: Alias): string => `${word} ${legacy}`;

  const forget = (alias: Alias): void => {
    aliases.delete(keyOf(alias));
    directories.legacy.delete(alias.word, alias.legacy, alias);
    directories.extracted.delete(alias.word, alias.extracted, alias);
  };
  const remember = (alias: Alias): void => {
    const before = aliases.get(keyOf(alias));
    if (before) forget(before);
    aliases.set(keyOf(alias), alias);
    directories.legacy.set(alias.word, alias.legacy, { other: alias.extracted, alias });
    directories.extracted.set(alias.word, alias.extracted, { other: alias.legacy, alias });
    if (aliases.size > MAX_ALIASES) forget(aliases.values().next().value!);
  };
  const other = (word: string | null, id: string, to: Upstream): string | undefined =>
    directories[to === 'extracted' ? 'legacy' : 'extracted'].find(word, id);

  const rewritten = (value: JsonValue, name: string | null, to: Upstream): JsonValue => {
    if (value instanceof JsonObject)
      return new JsonObject(
        value.keys,
        value.values.map((member, i) => rewritten(member, ID_NAME.test(value.keys[i]!) ? value.keys[i]! : null, to)),
      );
    if (Array.isArray(value)) return value.map((item) => rewritten(item, name, to));
    const id = name === null ? null : scalar(value);
    const found = id === null ? undefined : other(wordOf(name!) || null, id, to);
    if (found === undefined) return value;
    // A number stays one where the other side's id is one.
    return value instanceof JsonNumber && /^-?(?:0|[1-9]\d*)$/.test(found) ? new JsonNumber(found) : found;
  };
  const path = (text: string, to: Upstream): string => {
    let before = '';
    return text
      .split('/')
      .map((segment) => {
        const found = other(wordOf(before), segment, to);
        before = segment;
        return found ?? segment;
      })
      .join('/');
  };
  const isAlias = ({ path: place, legacy, extracted }: Difference): boolean => {
    if (legacy === undefined || extracted === undefined) return false;
    const [ours, theirs] = [legacy, extracted].map((value) => (typeof value === 'string' ? value : JSON.stringify(value))) as [
      string,
      string,
    ];
    // links, in headers and in bodies
    if (ours.includes('/') && ours.length <= 2_048)
      return path(ours.split(/[?#]/, 1)[0]!, 'extracted') + ours.slice(ours.split(/[?#]/, 1)[0]!.length) === theirs;
    const name = /([A-Za-z0-9_-]+)(?:\[\d+\])*$/.exec(place)?.[1] ?? '';
    return ID_NAME.test(name) && other(wordOf(name) || null, ours, 'extracted') === theirs;
  };

  return {
    remember,
    learn: (target, legacy, extracted) => {
      if (legacy.status >= 300 || extracted.status >= 300 || !legacy.complete || !extracted.complete) return [];
      const found: Alias[] = [];
      const pair = (word: string, ours: string | null, theirs: string | null): void => {
        // known under another word already: a command upon a thing that an earlier one made
        if (ours === null || theirs === null || ours === theirs || other(null, ours, 'extracted') === theirs) return;
        const alias = { word, legacy: ours, extracted: theirs };
        if (aliases.get(keyOf(alias))?.extracted === theirs || /^eyJ/.test(ours)) return;
        remember(alias);
        found.push(alias);
      };
      // the thing that was created: `/api/orders` gives orders
      const own = wordOf(segmentsOf(target).at(-1) ?? '');
      const walk = (a: JsonValue | undefined, b: JsonValue | undefined, inside: string, name: string | null): void => {
        if (a instanceof JsonObject && b instanceof JsonObject && a.keys.length <= MAX_MEMBERS) {
          for (const [i, key] of a.keys.entries()) {
            const [x, y] = [a.values[i], b.values[b.keys.indexOf(key)]];
            const named = ID_NAME.test(key) && !(x instanceof JsonObject) && !secret(key);
            walk(x, y, named ? inside : wordOf(key), named ? key : null);
          }
        } else if (Array.isArray(a) && Array.isArray(b))
          for (let i = 0; i < Math.min(a.length, b.length); i++) walk(a[i], b[i], inside, name);
        else if (name !== null) pair(wordOf(name) || inside, scalar(a), scalar(b));
      };
      walk(documentOf(legacy), documentOf(extracted), own, null);
      const [here, there] = [locationOf(legacy), locationOf(extracted)];
      if (here && there) pair(here.word, here.id, there.id);
      return found;
    },
    target: (target, to) => {
      if (aliases.size === 0) return target;
      const at = target.indexOf('?');
      if (at < 0) return path(target, to);
      const query = target
        .slice(at + 1)
        .split('&')
        .map((pair) => {
          const [name = '', ...rest] = pair.split('=');
          const found = ID_NAME.test(name) && rest.length > 0 ? other(wordOf(name) || null, rest.join('='), to) : undefined;
          return found === undefined ? pair : `${name}=${found}`;
        });
      return `${path(target.slice(0, at), to)}?${query.join('&')}`;
    },
    body: (body, contentType, to) => {
      if (aliases.size === 0 || !/json/i.test(contentType)) return body;
      const parsed = parseJson(decodeText(body, null).text);
      return parsed.ok ? new TextEncoder().encode(spelled(rewritten(parsed.value, null, to))) : body;
    },
    excuse: (verdict) => {
      if (verdict.kind !== 'mismatch' || aliases.size === 0) return verdict;
      const differences = verdict.differences.filter((one) => !isAlias(one));
      if (differences.length === verdict.differences.length) return verdict;
      const noise: Noise[] = [...verdict.noise, ...verdict.differences.filter(isAlias).map((one) => ({ ...one, rule: ALIAS_RULE }))];
      return differences.length > 0 ? { kind: 'mismatch', differences, noise } : { kind: 'noise', noise };
    },
    size: () => aliases.size,
  };
};
