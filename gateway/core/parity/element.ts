import { JsonObject, type JsonValue } from './json.ts';

/**
 * Markup in the model of JSON, so that one walk and one set of rules serve every kind of document: an element is
 * `{name, "@attribute": …, content: […]}`, text is a string. `content` is left out where there is none.
 */
export type Element = {
  readonly name: string;
  /** In any order: attributes are a set (XML 1.0, 3.1). */
  readonly attributes: readonly (readonly [name: string, value: string])[];
  readonly content: JsonValue[];
};

export const elementValue = ({ name, attributes, content }: Element): JsonObject => {
  const sorted = [...attributes].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const keys = ['name', ...sorted.map(([attribute]) => `@${attribute}`)];
  const values: JsonValue[] = [name, ...sorted.map(([, value]) => value)];
  return content.length === 0 ? new JsonObject(keys, values) : new JsonObject([...keys, 'content'], [...values, content]);
};

const NAMED: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
  nbsp: '\u00a0',
  copy: '\u00a9',
  reg: '\u00ae',
  trade: '\u2122',
  hellip: '\u2026',
  ndash: '\u2013',
  mdash: '\u2014',
  lsquo: '\u2018',
  rsquo: '\u2019',
  ldquo: '\u201c',
  rdquo: '\u201d',
  laquo: '\u00ab',
  raquo: '\u00bb',
  euro: '\u20ac',
  pound: '\u00a3',
  times: '\u00d7',
  middot: '\u00b7',
  bull: '\u2022',
  auml: '\u00e4',
  ouml: '\u00f6',
  uuml: '\u00fc',
  Auml: '\u00c4',
  Ouml: '\u00d6',
  Uuml: '\u00dc',
  szlig: '\u00df',
  eacute: '\u00e9',
  egrave: '\u00e8',
  agrave: '\u00e0',
  ccedil: '\u00e7',
  oslash: '\u00f8',
  aring: '\u00e5',
};

const REFERENCE = /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([A-Za-z][A-Za-z0-9]{0,31}));/g;

/** Character references as characters. A name that is not known stays as it was sent: nothing a document declares is ever expanded. */
export const unescaped = (text: string): string =>
  text.includes('&')
    ? text.replace(REFERENCE, (whole: string, decimal?: string, hex?: string, name?: string) => {
        if (name !== undefined) return Object.hasOwn(NAMED, name) ? NAMED[name]! : whole;
        const code = decimal === undefined ? Number.parseInt(hex!, 16) : Number(decimal);
        return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
      })
    : text;
