import { type Element, elementValue, unescaped } from './element.ts';
import { MAX_DEPTH, type ParseResult } from './json.ts';

const NAME = '[\\p{L}_:][\\p{L}\\p{M}\\p{N}_:.·-]*';
const OPEN = new RegExp(`<(${NAME})`, 'uy');
const CLOSE = new RegExp(`</(${NAME})\\s*>`, 'uy');
const ATTRIBUTE = new RegExp(`\\s+(${NAME})\\s*=\\s*(?:"([^"<]*)"|'([^'<]*)')`, 'uy');
const OPEN_END = /\s*(\/?)>/y;
/** Each element that declares one copies the scope, so that the scope has to stay small. */
const MAX_NAMESPACES = 256;
const SPACE = /^[ \t\r\n]*$/;

type Scope = ReadonlyMap<string, string>;
type Open = Element & { readonly tag: string; readonly scope: Scope; readonly keepsSpace: boolean };

/** `{namespace}local`: a prefix is only a spelling (Namespaces in XML 1.0). An undeclared prefix stays. */
const expanded = (name: string, scope: Scope, useDefault: boolean): string => {
  const colon = name.indexOf(':');
  const prefix = colon < 0 ? '' : name.slice(0, colon);
  if (prefix === 'xml') return name;
  const uri = prefix === '' && !useDefault ? undefined : scope.get(prefix);
  return uri ? `{${uri}}${name.slice(colon + 1)}` : name;
};

const scopeOf = (attributes: readonly (readonly [string, string])[], outer: Scope): Scope => {
  const declared = attributes.filter(([name]) => name === 'xmlns' || name.startsWith('xmlns:'));
  if (declared.length === 0) return outer;
  return new Map([...outer, ...declared.map(([name, uri]) => [name.slice('xmlns:'.length), uri] as const)]);
};

/**
 * Reads well-formed XML (1.0, with namespaces) into the model of `element.ts`. Comments, the declaration and the document type are left
 * out; CDATA is text; white space between elements means nothing unless `xml:space="preserve"`. Entities that a document declares are not
 * expanded, so there is no bomb and no outside file. Never throws: what is not well-formed, or deeper than 500 levels, is `ok: false`.
 */
export const parseXml = (text: string): ParseResult => {
  let at = 0;
  const stack: Open[] = [];
  const root: Element = { name: '', attributes: [], content: [] };
  let pending = '';
  const fault = (why: string): ParseResult => ({ ok: false, at, why });
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found;
  };
  const skip = (from: string, to: string): string | null => {
    const end = text.indexOf(to, at + from.length);
    if (end < 0) return null;
    const inner = text.slice(at + from.length, end);
    at = end + to.length;
    return inner;
  };
  const flushText = (): void => {
    const top = stack.at(-1);
    if (pending !== '' && top && (top.keepsSpace || !SPACE.test(pending))) top.content.push(top.keepsSpace ? pending : pending.trim());
    pending = '';
  };
  /** `<!DOCTYPE …>` with its internal subset in brackets. */
  const skipDoctype = (): boolean => {
    let brackets = 0;
    for (let i = at + 2; i < text.length; i++) {
      const c = text.charAt(i);
      if (c === '"' || c === "'") {
        i = text.indexOf(c, i + 1);
        if (i < 0) return false;
      } else if (c === '[') brackets++;
      else if (c === ']') brackets--;
      else if (c === '>' && brackets <= 0) {
        at = i + 1;
        return true;
      }
    }
    return false;
  };
  const close = (): void => {
    flushText();
    const done = stack.pop()!;
    (stack.at(-1) ?? root).content.push(elementValue(done));
  };
  const open = (tag: string): ParseResult | undefined => {
    const named = new Map<string, string>();
    for (let found = match(ATTRIBUTE); found; found = match(ATTRIBUTE)) {
      if (named.has(found[1]!)) return fault(`attribute ${found[1]} twice`);
      named.set(found[1]!, unescaped((found[2] ?? found[3]!).replace(/[\t\r\n]/g, ' ')));
    }
    const attributes = [...named];
    const end = match(OPEN_END);
    if (!end) return fault('a tag without an end');
    if (stack.length >= MAX_DEPTH) return fault(`deeper than ${MAX_DEPTH} levels`);
    const outer = stack.at(-1);
    const scope = scopeOf(attributes, outer?.scope ?? new Map());
    if (scope.size > MAX_NAMESPACES) return fault(`more than ${MAX_NAMESPACES} namespaces in scope`);
    const space = named.get('xml:space');
    stack.push({
      tag,
      name: expanded(tag, scope, true),
      attributes: attributes
        .filter(([name]) => name !== 'xmlns' && !name.startsWith('xmlns:'))
        .map(([name, value]) => [expanded(name, scope, false), value]),
      content: [],
      scope,
      keepsSpace: space === undefined ? (outer?.keepsSpace ?? false) : space === 'preserve',
    });
    if (end[1] === '/') close();
    return undefined;
  };

  while (at < text.length) {
    if (text.charCodeAt(at) !== 0x3c) {
      const next = text.indexOf('<', at);
      const chunk = text.slice(at, next < 0 ? text.length : next).replace(/\r\n?/g, '\n');
      if (stack.length === 0 && !SPACE.test(chunk)) return fault('text outside the root element');
      pending += unescaped(chunk);
      at = next < 0 ? text.length : next;
    } else if (text.startsWith('<!--', at)) {
      if (skip('<!--', '-->') === null) return fault('a comment without an end');
    } else if (text.startsWith('<![CDATA[', at)) {
      const inner = skip('<![CDATA[', ']]>');
      if (inner === null || stack.length === 0) return fault('CDATA without an end, or outside the root element');
      pending += inner;
    } else if (text.startsWith('<?', at)) {
      if (skip('<?', '?>') === null) return fault('an instruction without an end');
    } else if (text.startsWith('<!', at)) {
      if (root.content.length > 0 || stack.length > 0 || !skipDoctype()) return fault('a declaration in the wrong place');
    } else if (text.startsWith('</', at)) {
      const found = match(CLOSE);
      if (!found || stack.at(-1)?.tag !== found[1]) return fault('an end tag that closes nothing');
      close();
    } else {
      if (stack.length === 0 && root.content.length > 0) return fault('more than one root element');
      flushText();
      const found = match(OPEN);
      if (!found) return fault('no tag after <');
      const bad = open(found[1]!);
      if (bad) return bad;
    }
  }
  if (stack.length > 0) return fault(`${stack.at(-1)!.tag} is not closed`);
  return root.content.length === 1 ? { ok: true, value: root.content[0]! } : fault('no root element');
};
