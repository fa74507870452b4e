import { JsonNumber, JsonObject, type JsonValue, parseJson, spelled } from './json.ts';
import { charsetOf, classOf, decodeText, mediaTypeOf } from './media.ts';
import { type Difference, headerValues, type Noise, type Observation, type Verdict } from './observation.ts';

/** The name under which differences between aliases are counted. */
export const ALIAS_RULE = 'alias';

/** Ids that each side mints for the same entity. */
export type Aliases = {
  /** Looks at both answers to one command that created something: what stands at the same place under a name such as `id` is the same entity. */
  readonly learn: (legacy: Observation, extracted: Observation) => void;
  /** A target as extracted knows it: path segments, and values of parameters named like ids, that are legacy's ids become extracted's. */
  readonly target: (target: string) => string;
  /** A JSON body as extracted knows it; any other body stays. */
  readonly body: (body: Uint8Array, contentType: string) => Uint8Array;
  /** Sets differences between aliases aside as noise. */
  readonly excuse: (verdict: Verdict) => Verdict;
};

/** So many ids are remembered; the oldest go first. */
const MAX_ALIASES = 100_000;
const MAX_ID = 128;
const ID_NAME = /^(?:.*[_-])?(?:ids?|uuids?|guids?|ulids?|refs?|reference|number|key)$|(?:Id|ID|Uuid|Ref)s?$/;
/** Objects with more members are maps of data, and no answer to a command that creates something. */
const MAX_MEMBERS = 1_000;

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

const lastSegment = (observation: Observation): string | null => {
  const path = (headerValues(observation, 'location')[0] ?? '').split(/[?#]/, 1)[0] ?? '';
  const segment = path.split('/').findLast((part) => part !== '');
  return segment === undefined || segment.length > MAX_ID ? null : segment;
};

/** Remembers ids; one for each run, bounded. */
export const createAliases = (): Aliases => {
  const extractedOf = new Map<string, string>();

  const remember = (legacy: string | null, extracted: string | null): void => {
    if (legacy === null || extracted === null || legacy === extracted) return;
    extractedOf.delete(legacy);
    extractedOf.set(legacy, extracted);
    if (extractedOf.size > MAX_ALIASES) extractedOf.delete(extractedOf.keys().next().value!);
  };
  const walk = (a: JsonValue | undefined, b: JsonValue | undefined, named: boolean): void => {
    if (a instanceof JsonObject && b instanceof JsonObject && b.keys.length <= MAX_MEMBERS)
      for (const [i, key] of a.keys.entries()) walk(a.values[i], b.values[b.keys.indexOf(key)], ID_NAME.test(key));
    else if (Array.isArray(a) && Array.isArray(b)) for (let i = 0; i < Math.min(a.length, b.length); i++) walk(a[i], b[i], named);
    else if (named) remember(scalar(a), scalar(b));
  };
  const other = (id: string): string => extractedOf.get(id) ?? id;
  const rewritten = (value: JsonValue, named: boolean): JsonValue => {
    if (value instanceof JsonObject)
      return new JsonObject(
        value.keys,
        value.values.map((member, i) => rewritten(member, ID_NAME.test(value.keys[i]!))),
      );
    if (Array.isArray(value)) return value.map((item) => rewritten(item, named));
    const id = named ? scalar(value) : null;
    const alias = id === null ? undefined : extractedOf.get(id);
    if (alias === undefined) return value;
    // A number stays one where the other side's id is one.
    return value instanceof JsonNumber && /^-?(?:0|[1-9]\d*)$/.test(alias) ? new JsonNumber(alias) : alias;
  };
  const isAlias = ({ path, legacy, extracted }: Difference): boolean => {
    if (legacy === undefined || extracted === undefined) return false;
    const [ours, theirs] = [legacy, extracted].map((value) => (typeof value === 'string' ? value : JSON.stringify(value)));
    if (path === 'header:location' || path === 'header:content-location') return ours!.split('/').map(other).join('/') === theirs;
    return ID_NAME.test(/([A-Za-z0-9_-]+)(?:\[\d+\])*$/.exec(path)?.[1] ?? '') && extractedOf.get(ours!) === theirs;
  };

  return {
    learn: (legacy, extracted) => {
      if (legacy.status >= 300 || extracted.status >= 300 || !legacy.complete || !extracted.complete) return;
      walk(documentOf(legacy), documentOf(extracted), false);
      remember(lastSegment(legacy), lastSegment(extracted));
    },
    target: (target) => {
      if (extractedOf.size === 0) return target;
      const at = target.indexOf('?');
      const path = (at < 0 ? target : target.slice(0, at)).split('/').map(other).join('/');
      if (at < 0) return path;
      const query = target
        .slice(at + 1)
        .split('&')
        .map((pair) => {
          const [name = '', ...rest] = pair.split('=');
          return ID_NAME.test(name) && rest.length > 0 ? `${name}=${other(rest.join('='))}` : pair;
        });
      return `${path}?${query.join('&')}`;
    },
    body: (body, contentType) => {
      if (extractedOf.size === 0 || !/json/i.test(contentType)) return body;
      const parsed = parseJson(decodeText(body, null).text);
      return parsed.ok ? new TextEncoder().encode(spelled(rewritten(parsed.value, false))) : body;
    },
    excuse: (verdict) => {
      if (verdict.kind !== 'mismatch') return verdict;
      const differences = verdict.differences.filter((one) => !isAlias(one));
      const noise: Noise[] = [...verdict.noise, ...verdict.differences.filter(isAlias).map((one) => ({ ...one, rule: ALIAS_RULE }))];
      return differences.length > 0 ? { kind: 'mismatch', differences, noise } : { kind: 'noise', noise };
    },
  };
};
