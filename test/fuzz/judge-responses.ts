import type { Exchange } from './responses.ts';
import { type Field, listOf, valuesOf } from './strict-message.ts';
import { type ResponseReading, readResponse, type StrictResponse } from './strict-response.ts';

/** What the client got for one request. */
export type Got = {
  /** Everything that came between the request and the end of its answer, or of the connection. */
  readonly text: string;
  /** `open`: the answer was whole and the connection stays. */
  readonly end: 'open' | 'fin' | 'reset' | 'hung';
};

export type ResponseOutcome = 'delivered' | 'refused' | 'broken-off' | 'nothing';

const NOT_END_TO_END =
  /^(?:connection|keep-alive|proxy-connection|transfer-encoding|upgrade|te|http2-settings|via|content-length|date|trailer|expect)$/i;

const endToEnd = (fields: readonly Field[]): string => {
  const named = new Set(listOf(fields, 'connection'));
  return JSON.stringify(fields.filter(([name]) => !NOT_END_TO_END.test(name) && !named.has(name.toLowerCase())));
};

const short = (text: string): string => JSON.stringify(text.length > 160 ? `${text.slice(0, 160)}…` : text);

const isOurs = (response: StrictResponse): boolean => valuesOf(response.fields, 'proxy-status').some((value) => value.startsWith('banyan'));

/** How a message differs from the one that the upstream sent; `part` = only a beginning of the body has to be there. */
const differences = (got: StrictResponse, sent: StrictResponse, part: boolean): string[] => {
  const faults: string[] = [];
  const differ = (what: string, a: string, b: string): void => {
    if (a !== b) faults.push(`${what} is ${short(a)}, the upstream said ${short(b)}`);
  };
  differ('the status', String(got.status), String(sent.status));
  differ('the fields', endToEnd(got.fields), endToEnd(sent.fields));
  if (part ? !sent.body.startsWith(got.body) : got.body !== sent.body) differ('the body', got.body, sent.body);
  for (const [name, value] of got.trailers) {
    if (/^(?:content-length|transfer-encoding|set-cookie)$/i.test(name)) faults.push(`the trailer ${name} was sent on`);
    if (!sent.trailers.some((trailer) => trailer[0] === name && trailer[1] === value))
      faults.push(`nobody sent the trailer ${short(name)}`);
  }
  return faults;
};

/** Interim answers are hints: some may be missing, none may be made up. */
const strangeInterims = (got: readonly StrictResponse[], sent: ResponseReading): string[] => {
  const left = sent.kind === 'invalid' ? [] : sent.interim.map(({ status }) => status);
  const faults: string[] = [];
  for (const { status } of got) {
    const at = left.indexOf(status);
    if (at === -1 && sent.kind !== 'invalid') faults.push(`an interim ${status} that nobody sent`);
    left.splice(0, at + 1);
  }
  return faults;
};

/** Holds what a client got for one exchange against what the upstream sent. `times` = how often the upstream was asked. Pure. */
export const judgeResponse = (
  exchange: Exchange,
  got: Got,
  times: number,
  upstreams: number,
): { faults: string[]; outcome: ResponseOutcome } => {
  const { reading, answer } = exchange;
  const faults: string[] = [];
  if (got.end === 'hung') faults.push('the answer stood still');
  if (times > (exchange.repeatable ? 2 * upstreams : 1)) faults.push(`asked ${times} times`);
  const client = readResponse(got.text, 0, { method: exchange.method, ended: got.end === 'fin' });
  if (client.kind === 'invalid') {
    faults.push(`the client got what is no HTTP (${client.why}): ${short(got.text)}`);
    return { faults, outcome: 'nothing' };
  }
  faults.push(...strangeInterims(client.interim, reading));
  const whole = client.kind === 'response';
  const message = client.kind === 'response' ? client.response : client.head;
  if (client.kind === 'response' && client.next < got.text.length)
    faults.push(`bytes behind the answer: ${short(got.text.slice(client.next))}`);

  /** Has the upstream done anything but answer well? */
  const doubtful =
    reading.kind !== 'response' ||
    exchange.leftover > 0 ||
    answer.after === 'reset' ||
    [reading.response, ...reading.interim].some(({ doubts }) => doubts.length > 0);
  if (message === null) {
    // Only an answer that had begun is broken off without a word; the head may have been underway.
    faults.push(`no answer (${got.end})`);
    return { faults, outcome: 'nothing' };
  }
  if (isOurs(message)) {
    if (!whole) faults.push('a broken-off answer of the gateway itself');
    if (message.status < 502 || message.status > 504) faults.push(`answered ${message.status} by the gateway`);
    // A kept connection may close under a request that must not be repeated.
    else if (!doubtful && (exchange.repeatable || times > 0)) faults.push(`answered ${message.status}, though the upstream answered well`);
    return { faults, outcome: 'refused' };
  }
  if (reading.kind === 'response') {
    faults.push(...differences(message, reading.response, !whole));
    if (!whole && !doubtful) faults.push('broken off, though the upstream answered well');
    return { faults, outcome: whole ? 'delivered' : 'broken-off' };
  }
  if (reading.head === null) {
    faults.push(`got ${message.status}, where the upstream sent none (${reading.kind === 'invalid' ? reading.why : 'it ended'})`);
    return { faults, outcome: 'delivered' };
  }
  faults.push(...differences(message, reading.head, true));
  if (whole) faults.push(`looks whole, though the upstream's was not (${reading.kind === 'invalid' ? reading.why : 'it ended'})`);
  return { faults, outcome: 'broken-off' };
};
