import { isAlias, isMap, isNode, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument, visit } from 'yaml';

export type Path = readonly (string | number)[];
/** 1-based; 0 when the place is not known. */
export type Place = { readonly line: number; readonly column: number };

export const NOWHERE: Place = { line: 0, column: 0 };

export type SyntaxFault = Place & { readonly message: string; readonly fatal: boolean };

/** A parsed YAML (or JSON) text that remembers where everything stood. */
export type SourceDocument = {
  readonly value: unknown;
  readonly faults: readonly SyntaxFault[];
  /** Where the value (or its key) at a path stands; a path that is not there gives the nearest parent's key. */
  readonly locate: (path: Path, what: 'key' | 'value') => Place;
};

/** Longest text that is read: a configuration is written by people. */
const MAX_TEXT = 4 * 1_048_576;
/** How often aliases may repeat a node, against documents that unfold without end. */
const MAX_ALIASES = 100;

/** A text that is no YAML at all would otherwise give a fault per line. */
const MAX_FAULTS = 20;
const TOO_DEEP = 'the document is nested too deeply';

const failed = (message: string, place: Place = { line: 1, column: 1 }): SourceDocument => ({
  value: undefined,
  faults: [{ ...place, message, fatal: true }],
  locate: () => NOWHERE,
});

/**
 * A key with nothing after its colon counts as absent, so that a section whose lines are all commented out means its defaults (not inside lists, where it would
 * hide a forgotten value). Of a key that stands twice the first one is read on: that is where faults point.
 */
const tidy = (root: unknown): void => {
  const stack: unknown[] = [root];
  while (stack.length > 0) {
    const next = stack.pop();
    if (!isMap(next)) continue;
    const seen = new Set<string>();
    next.items = next.items.filter((pair) => {
      const key = nameOf(pair);
      const again = key !== '<<' && seen.has(key);
      seen.add(key);
      return !again && pair.value !== null && !(isScalar(pair.value) && pair.value.value === null && (pair.value.source ?? '') === '');
    });
    for (const pair of next.items) stack.push(pair.value);
  }
};

const nameOf = (pair: Pair): string => String(isScalar(pair.key) ? pair.key.value : pair.key);

/** Never throws; what is wrong with the text is in `faults`. */
export const readDocument = (text: string): SourceDocument => {
  if (text.length > MAX_TEXT) return failed('the file is longer than 4 MiB');
  const lines = new LineCounter();
  const at = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  try {
    const document = parseDocument(text.replace(/^\uFEFF/, ''), {
      lineCounter: lines,
      prettyErrors: false,
      merge: true,
      logLevel: 'error',
    });
    const faults = [...document.errors, ...document.warnings].slice(0, MAX_FAULTS).map((error) => ({
      ...at(error.pos[0]),
      message: error.code === 'DUPLICATE_KEY' ? 'this key stands here twice' : error.message.replaceAll(/\s+/g, ' '),
      fatal: error.code !== 'DUPLICATE_KEY',
    }));
    if (document.errors.some((error) => error.message.includes('call stack'))) return failed(TOO_DEEP);
    visit(document, {
      Alias: (_, alias) => {
        if (alias.resolve(document) === undefined)
          faults.push({ ...at(alias.range?.[0] ?? 0), message: `there is no anchor &${alias.source} before this alias`, fatal: true });
      },
    });
    if (faults.some((fault) => fault.fatal)) return { value: undefined, faults, locate: () => NOWHERE };
    tidy(document.contents);
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });

    const settled = (node: unknown): Node | undefined => {
      const plain = isAlias(node) ? node.resolve(document) : node;
      return isNode(plain) ? plain : undefined;
    };
    const locate = (path: Path, what: 'key' | 'value'): Place => {
      let node = settled(document.contents);
      let key: Node | undefined;
      for (const [index, step] of path.entries()) {
        let found: unknown;
        let foundKey: unknown;
        if (isMap(node)) {
          const pair: Pair | undefined = node.items.find((item) => nameOf(item) === String(step));
          found = pair?.value;
          foundKey = pair?.key;
        } else if (isSeq(node)) {
          found = node.items[Number(step)];
          foundKey = found;
        }
        if (foundKey === undefined) break;
        key = isNode(foundKey) ? foundKey : key;
        // Through an alias, the place where it is used says more than the anchor.
        if (index === path.length - 1 && what === 'value' && isNode(found)) return at(found.range?.[0] ?? key?.range?.[0] ?? 0);
        node = settled(found);
      }
      const offset = key?.range?.[0];
      return offset === undefined ? at(0) : at(offset);
    };
    return { value, faults, locate };
  } catch (error) {
    const why =
      error instanceof ReferenceError
        ? 'aliases repeat too much of the document'
        : error instanceof RangeError
          ? TOO_DEEP
          : 'the document cannot be read';
    return failed(why);
  }
};
