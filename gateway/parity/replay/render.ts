import type { ReplayDocument, ReportedPair } from './summary.ts';

// What XML 1.0 cannot hold at all would make the whole file unreadable.
const plain = (text: string): string => text.replace(/[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD]/g, '\uFFFD');
const escaped = (text: string): string =>
  plain(text).replace(/[&<>"']/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] ?? '&#39;');

const differenceLines = (pair: ReportedPair): string[] =>
  pair.differences.map(
    (one) =>
      `${one.path} ${one.kind}${'legacy' in one ? ` legacy ${JSON.stringify(one.legacy)}` : ''}${'extracted' in one ? ` extracted ${JSON.stringify(one.extracted)}` : ''}`,
  );

/** JUnit XML as CI servers read it: one case per route, a failure for each that mismatches, skipped where nothing could be compared. */
export const renderJunit = (document: ReplayDocument): string => {
  const cases = document.byRoute.map((route) => {
    const found = document.pairs.filter((pair) => pair.route === route.route && pair.verdict === 'mismatch').slice(0, 10);
    const text = found
      .map((pair) => [`${pair.method} ${pair.target}`, ...differenceLines(pair), pair.curl.legacy, pair.curl.extracted].join('\n'))
      .join('\n\n');
    const body =
      route.mismatch > 0
        ? `<failure message="${escaped(`${route.mismatch} of ${route.requests} answers differ`)}">${escaped(text)}</failure>`
        : route.match + route.noise === 0
          ? `<skipped message="nothing could be compared"/>`
          : '';
    return `    <testcase classname="parity" name="${escaped(route.route)}">${body}</testcase>`;
  });
  const failures = document.byRoute.filter(({ mismatch }) => mismatch > 0).length;
  const skipped = document.byRoute.filter(({ match, noise, mismatch }) => match + noise + mismatch === 0).length;
  if (document.verdict === 'incomparable')
    cases.push(`    <testcase classname="parity" name="comparable"><failure message="${escaped(document.why ?? '')}"/></testcase>`);
  const extra = document.verdict === 'incomparable' ? 1 : 0;
  const totals = `tests="${document.byRoute.length + extra}" failures="${failures + extra}" skipped="${skipped}"`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ${totals}>\n  <testsuite name="banyan parity replay" ${totals}>\n${cases.join('\n')}\n  </testsuite>\n</testsuites>\n`;
};

const STYLE = `:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8884;vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8881;padding:.6rem;margin:0;font-size:13px}.sides{display:grid;grid-template-columns:1fr 1fr;gap:1rem}.mismatch{color:#c0392b}.match{color:#1e8449}.incomparable{color:#b9770e}
details{margin:.5rem 0;border:1px solid #8884;border-radius:6px;padding:.5rem .8rem}summary{cursor:pointer}`;

const row = (cells: readonly (string | number)[]): string =>
  `<tr>${cells.map((cell) => (typeof cell === 'number' ? `<td class="n">${cell.toLocaleString('en')}</td>` : `<td>${escaped(cell)}</td>`)).join('')}</tr>`;
const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string =>
  rows.length === 0
    ? '<p>None.</p>'
    : `<table><thead><tr>${head.map((cell) => `<th>${escaped(cell)}</th>`).join('')}</tr></thead><tbody>${rows.map(row).join('')}</tbody></table>`;

const shown = (value: unknown): string => (value === undefined ? 'absent' : JSON.stringify(value));

const pairHtml = (pair: ReportedPair): string => {
  const side = (name: 'legacy' | 'extracted'): string =>
    `<div><h4>${name}: ${pair[name].status}, ${pair[name].ms} ms</h4><pre>${escaped(pair[name].body ?? '(no text)')}</pre><h4>ask again</h4><pre>${escaped(pair.curl[name])}</pre></div>`;
  return `<details><summary><strong class="${pair.verdict}">${pair.verdict}${pair.confirmed ? ', confirmed' : ''}</strong> ${escaped(`${pair.method} ${pair.target}`)}${pair.why === null ? '' : ` (${escaped(pair.why)})`}</summary>${table(
    ['path', 'kind', 'legacy', 'extracted', 'excused by'],
    [...pair.differences.map((one) => ({ ...one, rule: '' })), ...pair.noise].map((one) => [
      one.path,
      one.kind,
      shown(one.legacy),
      shown(one.extracted),
      one.rule,
    ]),
  )}<div class="sides">${side('legacy')}${side('extracted')}</div></details>`;
};

/** One page that needs nothing else: no script, no font, no link to anywhere. */
export const renderHtml = (document: ReplayDocument): string => {
  const { latency } = document;
  const percent = (value: number): string => `${(value * 100).toFixed(3)} %`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>Parity: ${document.verdict}</title><style>${STYLE}</style></head><body>
<h1>Parity: <span class="${document.verdict}">${document.verdict}</span></h1>
${document.why === null ? '' : `<p>${escaped(document.why)}</p>`}
<p>${escaped(document.legacy)} (legacy) against ${escaped(document.extracted)} (extracted): ${document.requests} requests, ${document.compared} compared, ${document.mismatch} differ${
    document.rate === null
      ? ''
      : `; ${percent(document.rate)} alike (95 %: ${percent(document.wilson[0])} to ${percent(document.wilson[1])})`
  }. Left out: ${document.skipped.commands} commands, ${document.skipped.unreadable} lines without a request.</p>
<h2>Routes</h2>${table(
    ['route', 'requests', 'match', 'noise', 'mismatch', 'incomparable'],
    document.byRoute.map((one) => [one.route, one.requests, one.match, one.noise, one.mismatch, one.incomparable]),
  )}
<h2>Fields</h2>${table(
    ['field', 'kind', 'excused by', 'pairs'],
    document.byField.map((one) => [one.field, one.kind, one.rule ?? '', one.count]),
  )}
<h2>Latency, ms</h2>${table(
    ['side', 'p50', 'p95', 'p99'],
    (['legacy', 'extracted'] as const).flatMap((name) => {
      const one = latency[name];
      return one === null ? [] : [[name, one.p50, one.p95, one.p99]];
    }),
  )}
${latency.test === null ? '' : `<p>An answer of extracted is slower than one of legacy in ${percent(latency.test.larger)} of all couples (Mann-Whitney, p = ${latency.test.p.toExponential(1)}).</p>`}
<h2>Pairs that do not match</h2>${document.pairs.map(pairHtml).join('\n') || '<p>None.</p>'}
${document.omitted === 0 ? '' : `<p>${document.omitted} more are not shown.</p>`}
</body></html>
`;
};

/** The report in the format that a file's name asks for: `.html`, `.xml` (JUnit), else JSON. */
export const renderFor = (file: string, document: ReplayDocument): string =>
  /\.html?$/i.test(file) ? renderHtml(document) : /\.xml$/i.test(file) ? renderJunit(document) : `${JSON.stringify(document, null, 2)}\n`;
