import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { compareObservations } from './compare.ts';
import { parseHtml } from './html.ts';
import { printable } from './json.ts';
import type { Observation, Verdict } from './observation.ts';
import { compileRules, type ParityRules } from './rules.ts';
import { parseXml } from './xml.ts';

const utf8 = new TextEncoder();
const latin1 = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));
const answer = (type: string, body: string | Uint8Array): Observation => ({
  status: 200,
  headers: [['Content-Type', type]],
  body: typeof body === 'string' ? utf8.encode(body) : body,
  complete: true,
});
const compare = (type: string, a: string | Uint8Array, b: string | Uint8Array, rules: ParityRules = {}): Verdict =>
  compareObservations(answer(type, a), answer(type, b), compileRules(rules, 0));
const differences = (type: string, a: string, b: string, rules: ParityRules = {}): unknown => {
  const verdict = compare(type, a, b, rules);
  return verdict.kind === 'mismatch' ? verdict.differences : verdict;
};

describe('lines of JSON', () => {
  const type = 'application/x-ndjson';
  it('matches lines with other member orders, line ends and separators', () => {
    expect(compare(type, '{"a":1,"b":2}\n{"c":3}\n', '{"b":2,"a":1.0}\r\n\n\u001e{"c":3}')).toEqual({ kind: 'match' });
  });
  it('finds one line that came, and one value', () => {
    expect(differences(type, '{"id":1}\n{"id":2}\n', '{"id":0}\n{"id":1}\n{"id":2}\n')).toEqual([
      { path: '$[0]', kind: 'extra', extracted: { id: 0 } },
    ]);
    expect(differences(type, '{"id":1,"n":1}', '{"id":1,"n":2}')).toMatchObject([{ path: '$[0].n', kind: 'value' }]);
  });
  it('says so when a line is no JSON', () => {
    expect(differences(type, '{"id":1}\n{', '{"id":1}\n{}')).toMatchObject([{ kind: 'unparsable' }]);
  });
});

describe('forms', () => {
  const type = 'application/x-www-form-urlencoded';
  it('matches another order and spelling of names', () => {
    expect(compare(type, 'a=1+2&b=%C3%A9&c', 'c=&b=%c3%a9&a=1%202')).toEqual({ kind: 'match' });
  });
  it('finds values, repeats and broken escapes', () => {
    expect(differences(type, 'a=1&b=2', 'a=1&b=3')).toEqual([{ path: '$.b', kind: 'value', legacy: '2', extracted: '3' }]);
    expect(differences(type, 'a=1&a=2', 'a=2')).toMatchObject([{ path: '$.a', kind: 'duplicate-key' }]);
    expect(differences(type, 'a=%zz', 'a=%25zz!')).toMatchObject([{ path: '$.a', kind: 'value' }]);
  });
});

describe('XML', () => {
  const type = 'application/xml';
  it.each([
    ['attribute order and quotes', '<a x="1" y="2"/>', "<a y='2' x='1'></a>"],
    ['white space between elements', '<a>\n  <b>1</b>\n  <c/>\n</a>', '<a><b>1</b><c/></a>'],
    ['declaration, comments and instructions', '<?xml version="1.0"?><!-- x --><a/>', '<a/>'],
    ['character references and CDATA', '<a>&#65;&amp;&lt;</a>', '<a><![CDATA[A&<]]></a>'],
    ['another prefix for a namespace', '<s:a xmlns:s="urn:x"><s:b/></s:a>', '<a xmlns="urn:x"><b/></a>'],
    ['a document type that declares bombs', '<!DOCTYPE a [<!ENTITY x "&y;&y;">]><a>&x;</a>', '<a>&x;</a>'],
  ])('matches %s', (_name, a, b) => {
    expect(compare(type, a, b)).toEqual({ kind: 'match' });
  });
  it.each([
    ['$.content[0].content[0]', 'value', '<a><b>1</b></a>', '<a><b>2</b></a>'],
    ["$['@x']", 'missing', '<a x="1"/>', '<a/>'],
    ['$.name', 'value', '<a xmlns="urn:x"/>', '<a xmlns="urn:y"/>'],
    ['$.content[0]', 'value', '<a xml:space="preserve"> 1</a>', '<a xml:space="preserve">1</a>'],
    ['$', 'unparsable', '<a><b></a>', '<a><b/></a>'],
    ['$', 'unparsable', '<a x="1" x="2"/>', '<a x="1"/>'],
  ])('finds at %s a %s', (path, kind, a, b) => {
    expect(differences(type, a, b)).toMatchObject([{ path, kind }]);
  });
  it('finds one element put in at the head of a thousand', () => {
    const rows = (from: number): string => `<r>${Array.from({ length: 1000 - from }, (_, i) => `<e id="${i + from}"/>`).join('')}</r>`;
    expect(differences(type, rows(1), rows(0))).toEqual([{ path: '$.content[0]', kind: 'extra', extracted: { name: 'e', '@id': '0' } }]);
  });
  it('obeys rules as JSON does', () => {
    const ignore = [{ at: "$['@at']" }, { at: '$..content[0]' }];
    expect(compare(type, '<a at="1"><b>1</b></a>', '<a at="2"><b>2</b></a>', { ignore }).kind).toBe('noise');
  });
  it('refuses depth and namespaces without end, and stays up', () => {
    expect(parseXml('<a>'.repeat(100_000))).toMatchObject({ ok: false });
    expect(parseXml(Array.from({ length: 400 }, (_, i) => `<a xmlns:p${i}="u">`).join(''))).toMatchObject({
      ok: false,
      why: expect.stringContaining('namespaces') as unknown,
    });
  });
});

describe('HTML', () => {
  const type = 'text/html; charset=utf-8';
  it.each([
    ['attribute order, case and quotes', '<P CLASS="b a" id=x>1</P>', "<p id='x' class='a  b'>1</p>"],
    ['white space that shows nothing', '<div>\n  <p>a\n b </p>\n</div>\n', '<div><p>a b</p></div>'],
    ['optional end tags', '<ul><li>1<li>2</ul><p>x<p>y', '<ul><li>1</li><li>2</li></ul><p>x</p><p>y</p>'],
    [
      'tables without end tags',
      '<table><tr><td>1<td>2<tr><td>3</table>',
      '<table><tr><td>1</td><td>2</td></tr><tr><td>3</td></tr></table>',
    ],
    ['void elements and boolean attributes', '<input disabled><br/>', '<input disabled=""><br>'],
    ['comments', 'a<!-- build 1 -->', 'a<!-- build 2 -->'],
    ['references', '&eacute;&#x41;', '\u00e9A'],
    ['the doctype in another case', '<!DOCTYPE html><html></html>', '<!doctype HTML>\n<html></html>'],
    ['self-ended drawings', '<svg><path d="M0"/><g/></svg>', '<svg><path d="M0"></path><g></g></svg>'],
  ])('matches %s', (_name, a, b) => {
    expect(compare(type, a, b)).toEqual({ kind: 'match' });
  });
  it.each([
    ['text', '<p>a</p>', '<p>b</p>'],
    ['an attribute', '<a href="/x">1</a>', '<a href="/y">1</a>'],
    ['a blank between words', '<b>a</b> <i>b</i>', '<b>a</b><i>b</i>'],
    ['white space in pre', '<pre>a  b</pre>', '<pre>a b</pre>'],
    ['a script', '<script>if (a < b) f("</p>")</script>', '<script>if (a > b) f("</p>")</script>'],
    ['an element of another name', '<b>a</b>', '<i>a</i>'],
    ['quirks mode', '<!doctype html><p>', '<p>'],
  ])('finds %s', (_name, a, b) => {
    expect(compare(type, a, b).kind).toBe('mismatch');
  });
  it('reads what is in scripts and titles as text', () => {
    const parsed = parseHtml('<title>a <b></title><script>"<!--"</script><p>x');
    expect(parsed.ok && printable(parsed.value)).toMatchObject({
      content: [
        { name: 'title', content: ['a <b>'] },
        { name: 'script', content: ['"<!--"'] },
        { name: 'p', content: ['x'] },
      ],
    });
  });
});

describe('multipart', () => {
  const body = (boundary: string, parts: readonly string[], end = '\r\n'): string =>
    `${parts.map((part) => `--${boundary}${end}${part}${end}`).join('')}--${boundary}--${end}`;
  const observe = (boundary: string, parts: readonly string[], end?: string): Observation =>
    answer(`multipart/form-data; boundary="${boundary}"`, latin1(body(boundary, parts, end)));
  const field = (name: string, value: string, type = '', end = '\r\n'): string =>
    `Content-Disposition: form-data; name="${name}"${type ? `${end}Content-Type: ${type}` : ''}${end}${end}${value}`;
  const rules = compileRules({}, 0);

  it('ignores the boundary and compares JSON inside as JSON', () => {
    expect(
      compareObservations(
        observe('x', [field('a', '1'), field('b', '{"p":1,"q":2}', 'application/json')]),
        observe('yy.z', [field('a', '1'), field('b', '{"q":2,"p":1.0}', 'application/json; charset=utf-8')]),
        rules,
      ),
    ).toEqual({ kind: 'match' });
  });
  it.each<[string, string, string, string[], string[]]>([
    ['$[1].body', 'value', 'a text', [field('a', '1'), field('b', '2')], [field('a', '1'), field('b', '3')]],
    ['$[0].body', 'value', 'bytes', [field('a', '\u0000\u0001', 'image/png')], [field('a', '\u0000\u0002', 'image/png')]],
    ['$[1]', 'missing', 'a part that is gone', [field('a', '1'), field('b', '2')], [field('a', '1')]],
    [
      '$[0].body.p',
      'value',
      'a value in JSON inside',
      [field('a', '{"p":1}', 'application/json')],
      [field('a', '{"p":2}', 'application/json')],
    ],
  ])('finds at %s a %s: %s', (path, kind, _name, a, b) => {
    expect(compareObservations(observe('x', a), observe('y', b), rules)).toMatchObject({ differences: [{ path, kind }] });
  });
  it('reads parts without headers, with bare line ends, and refuses a body without its end', () => {
    expect(compareObservations(observe('x', ['\r\nhello']), observe('y', ['\nhello'], '\n'), rules)).toEqual({ kind: 'match' });
    const cut = answer('multipart/mixed; boundary=x', latin1('--x\r\n\r\nhello'));
    expect(compareObservations(observe('x', ['\r\nhello']), cut, rules)).toMatchObject({ kind: 'mismatch' });
  });
});

describe('charsets', () => {
  it('reads UTF-16 with a byte order mark, and what documents declare themselves', () => {
    const utf16 = (text: string): Uint8Array => new Uint8Array(new Uint16Array([0xfeff, ...[...text].map((c) => c.charCodeAt(0))]).buffer);
    expect(compare('application/json', utf16('{"a":"\u00e9","b":1}'), utf16('{"b":1,"a":"\u00e9"}'))).toEqual({ kind: 'match' });
    const declared = latin1('<?xml version="1.0" encoding="iso-8859-1"?><a>\u00e9</a>');
    expect(compare('application/xml', declared, '<a>\u00e9</a>')).toEqual({ kind: 'match' });
    const meta = latin1('<meta charset="windows-1252"><p>\u00e9</p>');
    expect(compare('text/html', meta, '<meta charset="utf-8"><p>\u00e9</p>')).toMatchObject({ differences: [{ kind: 'value' }] });
  });
});

describe('properties of all documents', () => {
  const type = fc.constantFrom(
    'application/x-ndjson',
    'application/xml',
    'text/html',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/json',
  );
  const piece = fc.constantFrom(
    ...'< > </ <a <b> </a> <p> <li> <table> <td> <script> </script> <!-- --> <![CDATA[ ]]> <!DOCTYPE <?xml ?> = " \' & &amp; &#0; % + ; --x -- -->'.split(
      ' ',
    ),
    '\r\n',
    '\n\n',
    ' ',
    '{"a":',
    '[1',
    ']',
    'xmlns:a="b"',
    'name="password"',
    '\u0000',
  );
  const text = fc.oneof(
    fc.array(fc.oneof(piece, fc.string({ maxLength: 5 })), { maxLength: 60 }).map((parts) => parts.join('')),
    fc.string(),
  );
  it('never throw, and every body matches itself', () => {
    fc.assert(
      fc.property(type, text, text, (media, a, b) => {
        const [there, back] = [compare(media, a, b), compare(media, b, a)];
        expect(back.kind).toBe(there.kind);
        expect(compare(media, a, a).kind).toBe('match');
        expect(compare(media, `${a} `, `${a} `).kind).toBe('match');
      }),
      { numRuns: 1_000 },
    );
  });
  it('generated XML matches itself with its attributes in another order and blanks between elements', () => {
    const name = fc.constantFrom('a', 'b', 'c-d', 'p:e');
    const attributes = fc.uniqueArray(fc.tuple(fc.constantFrom('x', 'y', 'z', 'p:w'), fc.stringMatching(/^[a-z0-9 ]*$/)), {
      selector: ([key]) => key,
    });
    type Tree = { name: string; attributes: [string, string][]; children: Tree[] };
    const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
      tree: fc.record({
        name,
        attributes,
        children: fc.oneof({ maxDepth: 4 }, fc.constant<Tree[]>([]), fc.array(tie('tree'), { maxLength: 3 })),
      }),
    }));
    const print = (node: Tree, blank: string, turn: boolean): string => {
      const list = turn ? [...node.attributes].reverse() : node.attributes;
      return `<${node.name}${list.map(([key, value]) => ` ${key}="${value}"`).join('')}>${blank}${node.children.map((child) => print(child, blank, turn)).join(blank)}${blank}</${node.name}>`;
    };
    fc.assert(fc.property(tree, (node) => compare('application/xml', print(node, '', false), print(node, '\n  ', true)).kind === 'match'));
  });
});
