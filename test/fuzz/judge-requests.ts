import type { Heard } from './client.ts';
import { type Doubt, type Field, listOf, valuesOf } from './strict-message.ts';
import type { StrictRequest, Verdict } from './strict-request.ts';
import type { StrictResponse } from './strict-response.ts';
import type { Sighting } from './upstream.ts';

/** With what the gateway may refuse a request that is legal. */
const MAY_REFUSE: Readonly<Record<Doubt, readonly number[]>> = {
  'method-unknown': [400],
  'target-high-bytes': [400],
  'version-minor': [400],
  'blank-lines': [400],
  'host-odd': [400],
  expectation: [417],
  'max-forwards': [204, 405],
  'head-size': [414, 431],
  'chunk-extension-space': [400],
  'chunk-extension-size': [413],
  'trailer-size': [431],
  'trailer-framing': [400],
  'line-spaces': [400],
  'coding-tab': [400],
  'chunk-extension-name': [400],
  'status-odd': [],
  'reason-space': [],
  'length-without-body': [],
  'name-space': [],
  'chunk-extension-malformed': [],
  'interim-flood': [],
  'chunk-size-long': [400],
};

/** Fields that a proxy owns, removes or rewrites; everything else has to arrive as it left (RFC 9110 7.6.1, 7.6.3, 7.2). */
const NOT_END_TO_END =
  /^(?:connection|keep-alive|proxy-connection|transfer-encoding|upgrade|http2-settings|te|host|content-length|expect|max-forwards|via|forwarded|x[-_]real[-_]ip|x[-_]forwarded[-_].*|x-request-id|banyan[-_].*)$/i;

const endToEnd = (fields: readonly Field[]): Field[] => {
  const named = new Set(listOf(fields, 'connection'));
  return fields.filter(([name]) => !NOT_END_TO_END.test(name) && !named.has(name.toLowerCase()));
};

/** Upgrades may gather the lines of one field, and write its name in one of the ways it came; the lines of Cookie join (RFC 9113 8.2.3). */
const gathered = (fields: readonly Field[]): string[] => {
  const values = new Map<string, string>();
  for (const [name, value] of endToEnd(fields)) {
    const lower = name.toLowerCase();
    const before = values.get(lower);
    values.set(lower, before === undefined ? value : `${before}${lower === 'cookie' ? '; ' : '\n'}${value}`);
  }
  return [...values].map(([name, value]) => `${name}: ${value}`).sort();
};

const NEVER_IN_TRAILERS = /^(?:content-length|transfer-encoding|host|connection|x-forwarded-.*|authorization|cookie)$/i;

const short = (text: string): string => JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text);

/** How what an upstream saw differs from what the client sent; empty = it is the same request. */
const differences = ({ request: seen, whole }: Sighting, sent: StrictRequest): string[] => {
  const faults: string[] = [];
  const differ = (what: string, a: string, b: string): void => {
    if (a !== b) faults.push(`${what} is ${short(a)} upstream, ${short(b)} at the client`);
  };
  differ('the method', seen.method, sent.method);
  differ('the target', seen.target, sent.path);
  differ('Host', seen.host, sent.host);
  const fields = sent.upgrades ? gathered : endToEnd;
  differ('a field', JSON.stringify(fields(seen.fields)), JSON.stringify(fields(sent.fields)));
  if (whole) {
    differ('the body', seen.body, sent.body);
    for (const trailer of seen.trailers) {
      if (NEVER_IN_TRAILERS.test(trailer[0])) faults.push(`the trailer ${trailer[0]} was sent on`);
      if (!sent.trailers.some(([name, value]) => name === trailer[0] && value === trailer[1]))
        faults.push(`nobody sent the trailer ${short(trailer[0])}`);
    }
  } else if (!sent.body.startsWith(seen.body)) differ('part of a body', seen.body, sent.body);
  return faults;
};

/** In diverted mode a query's body is read before it is sent, and then has a length. */
const framingFits = (seen: StrictRequest, sent: StrictRequest, buffers: boolean): boolean =>
  seen.framing === sent.framing || (sent.body === '' && seen.framing !== 'chunked') || (buffers && seen.framing === 'length');

const nonceOf = (answer: StrictResponse): number | null => {
  const [nonce] = valuesOf(answer.fields, 'x-nonce');
  return nonce === undefined ? null : Number(nonce);
};

/**
 * Node tells nobody of a fault in the body of a request that asked for an upgrade which is not taken: it reads on and gives nothing, until
 * the time-out of a body that stands still ends it. Behind the method PRI it waits for the rest of HTTP/2's preface, until the time-out of a head.
 */
const maySwallow = ({ requests, tail }: Verdict): boolean =>
  [...requests, tail].some((request) => (request?.upgrades === true && request.framing === 'chunked') || request?.method === 'PRI');

export type Judged = { readonly faults: string[]; readonly answered: number; readonly refused: number };

/**
 * Holds what the upstreams saw and what the client heard against what the client sent. `buffers`: a body may get a length on the way.
 * Pure.
 */
export const judgeRequests = (verdict: Verdict, heard: Heard, seen: readonly Sighting[], buffers: boolean): Judged => {
  const faults: string[] = [];
  const { answers } = heard;
  let answered = 0;
  let refused = 0;
  let a = 0;
  let s = 0;
  /** The proxy has ended the connection by its own word or the client's. */
  let over = false;
  /** A refusal may come before those in front of it are answered. */
  const doubtful = verdict.requests.some(({ doubts }) => doubts.length > 0);
  const broken = verdict.end !== 'clean' && verdict.end !== 'closed';

  for (const [i, request] of verdict.requests.entries()) {
    const fault = (why: string): void => void faults.push(`request ${i + 1} of ${verdict.requests.length}: ${why}`);
    if (over) break;
    const answer = answers[a];
    if (answer === undefined) {
      const sighting = seen[s];
      // a client that left early, or was left: what it had sent in one breath may have gone on
      for (const sent of verdict.requests.slice(i)) {
        const next = seen[s];
        if (next !== undefined && differences(next, sent).length === 0) s++;
      }
      // a client that asks for a tunnel and closes its end in one breath may find it closed
      const parted = request.upgrades && heard.end === 'fin';
      if (!broken && !doubtful && !parted && !maySwallow(verdict))
        fault(`no answer (${heard.end}), though ${sighting === undefined ? 'not ' : ''}seen upstream`);
      over = true;
      break;
    }
    a++;
    const closing = listOf(answer.fields, 'connection').includes('close');
    over = closing || request.closes;
    const nonce = nonceOf(answer);
    const sighting = seen[s];
    if (nonce === null) {
      refused++;
      if (!request.doubts.some((doubt) => MAY_REFUSE[doubt].includes(answer.status))) fault(`legal, but answered ${answer.status}`);
      if (sighting !== undefined && !sighting.whole && differences(sighting, request).length === 0) s++;
      continue;
    }
    answered++;
    if (sighting === undefined || sighting.nonce !== nonce) {
      fault(`got the answer to ${nonce}, but ${sighting === undefined ? 'nothing' : `${sighting.nonce}`} was seen for it`);
      continue;
    }
    s++;
    if (!sighting.whole) fault('answered though an upstream saw only part of it');
    for (const difference of differences(sighting, request)) fault(difference);
    if (!framingFits(sighting.request, request, buffers)) fault(`framed by ${request.framing}, upstream by ${sighting.request.framing}`);
    const closesByRight =
      request.closes ||
      request.minor === 0 ||
      request.upgrades ||
      request.expects ||
      listOf(request.fields, 'proxy-connection').includes('close');
    if (closing && !closesByRight) fault('the connection was closed behind its answer for no reason');
  }

  if (!over && broken) {
    const answer = answers[a];
    if (answer !== undefined) {
      a++;
      refused++;
      if (nonceOf(answer) !== null) faults.push(`what is ${verdict.end} was answered by an upstream`);
      else if (answer.status < 400) faults.push(`what is ${verdict.end} was answered ${answer.status}`);
    }
    const sighting = seen[s];
    if (sighting !== undefined && verdict.tail !== null && !sighting.whole) {
      s++;
      for (const difference of differences(sighting, verdict.tail)) faults.push(`part of a request: ${difference}`);
    }
  }
  for (const sighting of seen.slice(s))
    faults.push(
      `upstream saw ${sighting.whole ? '' : 'part of '}a request that is none (${verdict.end}): ${short(`${sighting.request.method} ${sighting.request.target} ${sighting.request.body}`)}`,
    );
  for (const answer of answers.slice(a)) faults.push(`one answer too many: ${answer.status}`);
  if (heard.rest !== '') {
    // A refusal of what was no request has a body, be it that HEAD stood there; an answer cut off with the connection is visible.
    // One that is swallowed may have had its interim answer.
    const cut = maySwallow(verdict) || ((broken || (answers.at(-1)?.status ?? 0) >= 400) && (heard.end === 'fin' || heard.end === 'reset'));
    if (!cut) faults.push(`bytes behind the answers: ${short(heard.rest)}`);
  }
  if (heard.end === 'hung' && !maySwallow(verdict)) faults.push('the connection stood still');
  return { faults, answered, refused };
};
