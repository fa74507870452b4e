import { type Element, elementValue, unescaped } from './element.ts';
import { JsonObject, MAX_DEPTH, type ParseResult } from './json.ts';

const words = (list: string): ReadonlySet<string> => new Set(list.split(' '));
const VOID = words('area base br col embed hr img input link meta param source track wbr');
/** Their content is text up to the end tag (HTML, 13.2.5). */
const RAW = words('script style textarea title xmp iframe noembed noframes');
/** White space counts inside these. */
const KEEPS_SPACE = words('pre textarea script style');
/** Block elements and the like: white space before and after them shows nothing. */
const BLOCK = words(
  'html head body title meta link script style base address article aside blockquote br center dd details dialog dir div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr li main menu nav noscript ol option optgroup p pre section select summary table caption colgroup col thead tbody tfoot tr td th template ul',
);
/** Start tags that end an element which is still open (HTML, 13.1.2.4, optional tags): what opens -> what it closes, and where looking ends. */
const CLOSES: Readonly<Record<string, readonly [closed: ReadonlySet<string>, border: ReadonlySet<string>]>> = {
  li: [words('li p'), words('ul ol menu')],
  dt: [words('dt dd p'), words('dl')],
  dd: [words('dt dd p'), words('dl')],
  option: [words('option'), words('select datalist optgroup')],
  optgroup: [words('option optgroup'), words('select')],
  tr: [words('tr td th p'), words('table')],
  td: [words('td th p'), words('table tr')],
  th: [words('td th p'), words('table tr')],
  thead: [words('tr td th tbody thead tfoot p'), words('table')],
  tbody: [words('tr td th tbody thead tfoot p'), words('table')],
  tfoot: [words('tr td th tbody thead tfoot p'), words('table')],
  body: [words('head'), words('html')],
};
const ENDS_P = words(
  'address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr main menu nav ol p pre section table ul',
);
const P = words('p');
const P_BORDER = words('button table td th caption div section article li ul ol dl body html form fieldset blockquote');

const TAG = /<(\/?)([A-Za-z][^\s/>]*)/y;
const ATTRIBUTE = /[\s/]*([^\s/>=][^\s/>=]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"']*)))?/y;
const TAG_END = /[\s/]*>/y;
/** Values that are sets of words. */
const WORD_SETS = words('class rel');

const normalValue = (name: string, value: string): string =>
  WORD_SETS.has(name)
    ? [
        ...new Set(
          value
            .trim()
            .split(/\s+/)
            .map((word) => (name === 'rel' ? word.toLowerCase() : word)),
        ),
      ]
        .sort()
        .join(' ')
    : value;

type Open = Element & { readonly keepsSpace: boolean; readonly drawing: boolean };

/**
 * Reads HTML into the model of `element.ts`, as lenient as browsers are about what is written most: optional end tags, void elements, raw text,
 * unquoted attributes. It builds no missing `html` or `tbody`. Tag and attribute names lose their case, attributes and classes their order,
 * comments are left out, runs of white space are one blank, and none beside block elements; `pre`, `textarea`, `script` and `style`
 * keep theirs. Never throws; only nesting over 500 levels is `ok: false`.
 */
export const parseHtml = (text: string): ParseResult => {
  const root: Open = { name: '#document', attributes: [], content: [], keepsSpace: false, drawing: false };
  const stack: Open[] = [root];
  let at = 0;
  let pending = '';

  const flushText = (): void => {
    const top = stack.at(-1)!;
    const shown = top.keepsSpace ? pending.replace(/\r\n?/g, '\n') : pending.replace(/[ \t\r\n\f]+/g, ' ');
    pending = '';
    if (shown !== '') top.content.push(shown);
  };
  const closeTop = (): void => {
    flushText();
    const done = stack.pop()!;
    stack
      .at(-1)!
      .content.push(elementValue({ ...done, content: done.keepsSpace ? done.content : trimmed(done.content, BLOCK.has(done.name)) }));
  };
  /** Closes what stands above and including index `to`. */
  const closeTo = (to: number): void => {
    while (stack.length > to) closeTop();
  };
  const closeOptional = (closed: ReadonlySet<string>, border: ReadonlySet<string>): void => {
    let outermost = -1;
    for (let i = stack.length - 1; i > 0 && !border.has(stack[i]!.name); i--) if (closed.has(stack[i]!.name)) outermost = i;
    if (outermost > 0) closeTo(outermost);
  };
  const attributesHere = (): [string, string][] => {
    const attributes = new Map<string, string>();
    for (;;) {
      ATTRIBUTE.lastIndex = at;
      TAG_END.lastIndex = at;
      const found = TAG_END.test(text) ? null : ATTRIBUTE.exec(text);
      if (!found) break;
      at = ATTRIBUTE.lastIndex;
      const name = found[1]!.toLowerCase();
      // Of a repeated attribute the first one counts (HTML, 13.2.5.33).
      if (!attributes.has(name)) attributes.set(name, normalValue(name, unescaped(found[2] ?? found[3] ?? found[4] ?? '')));
    }
    return [...attributes];
  };
  /** True when the tag ended with `/>`. */
  const endOfTag = (): boolean => {
    const end = text.indexOf('>', at);
    const selfClosing = end > 0 && text.charAt(end - 1) === '/';
    at = end < 0 ? text.length : end + 1;
    return selfClosing;
  };
  const rawText = (name: string): string => {
    const close = new RegExp(`</${name}(?=[\\s/>])`, 'gi');
    close.lastIndex = at;
    const end = close.exec(text);
    const inner = text.slice(at, end?.index ?? text.length);
    at = end?.index ?? text.length;
    return name === 'textarea' || name === 'title' ? unescaped(inner) : inner;
  };
  const start = (name: string): void => {
    flushText();
    const implied = CLOSES[name];
    if (implied) closeOptional(...implied);
    if (ENDS_P.has(name)) closeOptional(P, P_BORDER);
    const attributes = attributesHere();
    const selfClosing = endOfTag();
    const top = stack.at(-1)!;
    // `<path/>` ends itself in drawings and formulas only; `<div/>` opens a div, as in browsers.
    const drawing = top.drawing || name === 'svg' || name === 'math';
    stack.push({ name, attributes, content: [], keepsSpace: top.keepsSpace || KEEPS_SPACE.has(name), drawing });
    if (VOID.has(name) || (selfClosing && drawing)) closeTop();
    else if (RAW.has(name)) pending = rawText(name);
  };
  const end = (name: string): void => {
    attributesHere();
    endOfTag();
    for (let i = stack.length - 1; i > 0; i--)
      if (stack[i]!.name === name) {
        closeTo(i);
        return;
      }
  };
  /** Comments, doctypes and other declarations; the doctype says in which mode a page is shown, so it counts. */
  const declaration = (): void => {
    const comment = text.startsWith('<!--', at);
    const stop = text.indexOf(comment ? '-->' : '>', at + 2);
    const inner = text.slice(at, stop < 0 ? text.length : stop);
    at = stop < 0 ? text.length : stop + (comment ? 3 : 1);
    if (/^<!doctype/i.test(inner)) root.content.push(inner.slice(2).toLowerCase().replace(/\s+/g, ' ').trim());
  };

  while (at < text.length) {
    if (stack.length > MAX_DEPTH) return { ok: false, at, why: `deeper than ${MAX_DEPTH} levels` };
    if (text.charCodeAt(at) !== 0x3c) {
      const next = text.indexOf('<', at);
      pending += unescaped(text.slice(at, next < 0 ? text.length : next));
      at = next < 0 ? text.length : next;
      continue;
    }
    TAG.lastIndex = at;
    const tag = TAG.exec(text);
    if (tag) {
      at = TAG.lastIndex;
      const name = tag[2]!.toLowerCase();
      if (tag[1] === '/') end(name);
      else start(name);
    } else if (text.startsWith('<!', at) || text.startsWith('<?', at)) declaration();
    else {
      pending += '<';
      at++;
    }
  }
  closeTo(1);
  flushText();
  return { ok: true, value: elementValue({ ...root, content: trimmed(root.content, true) }) };
};

const nameOf = (node: Element['content'][number] | undefined): string | null =>
  node instanceof JsonObject ? (node.values[0] as string) : null;

/** Text without the blanks that show nothing: at the edges of a block and beside one. */
const trimmed = (content: Element['content'], inBlock: boolean): Element['content'] => {
  const out: Element['content'] = [];
  for (let i = 0; i < content.length; i++) {
    const node = content[i]!;
    if (typeof node !== 'string') {
      out.push(node);
      continue;
    }
    const beside = (other: Element['content'][number] | undefined): boolean =>
      other === undefined ? inBlock : BLOCK.has(nameOf(other) ?? '');
    let text = node;
    if (beside(content[i - 1])) text = text.replace(/^ /, '');
    if (beside(content[i + 1])) text = text.replace(/ $/, '');
    if (text !== '') out.push(text);
  }
  return out;
};
