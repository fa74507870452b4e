import { type Draft, field, textOf } from './draft.ts';
import { mix, type Random, randomFrom } from './random.ts';
import { segments } from './requests.ts';
import { bendResponse, POISON } from './response-tricks.ts';
import { listOf } from './strict-message.ts';
import { type ResponseReading, readResponse } from './strict-response.ts';
import { mutate } from './tricks.ts';
import type { UpstreamAnswer } from './upstream.ts';

/** One request and what the upstream answers to it. */
export type Exchange = {
  readonly method: string;
  readonly minor: number;
  /** Its target, unlike every other one's. */
  readonly path: string;
  readonly request: string;
  /** May be asked again when nothing came back: a safe method, no body. */
  readonly repeatable: boolean;
  readonly answer: UpstreamAnswer;
  /** The answer as the one reading has it that every strict reader shares. */
  readonly reading: ResponseReading;
  /** Bytes that the upstream sends behind a whole answer. */
  readonly leftover: number;
};

const BODY = 'body of ';

const soundDraft = (r: Random, mark: string, method: string): Draft => {
  const body = BODY + mark;
  const fields = [field('X-Mark', mark)];
  let text = '';
  let status = '200';
  switch (r.below(6)) {
    case 0: {
      const cut = 1 + r.below(body.length - 1);
      text = `${cut.toString(16)}\r\n${body.slice(0, cut)}\r\n${(body.length - cut).toString(16)}\r\n${body.slice(cut)}\r\n0\r\n${r.chance(0.3) ? 'X-T: 1\r\n' : ''}\r\n`;
      fields.push(field('Transfer-Encoding', 'chunked'));
      break;
    }
    case 1:
      status = r.pick(['204', '304']);
      break;
    default:
      text = body;
      fields.push(field('Content-Length', String(body.length)));
  }
  if (r.chance(0.2)) fields.push(field('Set-Cookie', 'a=1'), field('Set-Cookie', 'b=2'));
  if (r.chance(0.2)) fields.push(field('Content-Type', 'text/plain'));
  if (r.chance(0.1)) fields.push(field('Connection', 'close'));
  if (r.chance(0.1)) fields.push(field('Date', 'Mon, 01 Jan 2024 00:00:00 GMT'));
  return {
    before: '',
    method: 'HTTP/1.1',
    gap: ' ',
    target: status,
    version: ' OK',
    eol: '\r\n',
    fields,
    end: '\r\n',
    body: method === 'HEAD' ? '' : text,
  };
};

/** Could the next exchange begin on this connection? */
const carriesOn = (reading: ResponseReading, length: number): boolean =>
  reading.kind === 'response' &&
  reading.next === length &&
  reading.response.framing !== 'close' &&
  !listOf(reading.response.fields, 'connection').includes('close') &&
  (reading.response.minor > 0 || listOf(reading.response.fields, 'connection').includes('keep-alive'));

const answerOf = (r: Random, mark: string, method: string, sound: boolean): Pick<Exchange, 'answer' | 'reading' | 'leftover'> => {
  const draft = soundDraft(r, mark, method);
  if (!sound) for (let n = r.chance(0.8) ? 1 : 2; n > 0; n--) bendResponse(draft, r);
  let text = textOf(draft);
  if (!sound && r.chance(0.3)) for (let n = 1 + r.below(2); n > 0; n--) text = mutate(text, r);
  if (!sound && r.chance(0.05)) text = r.pick(['', '\0'.repeat(50), POISON.repeat(3), 'HTTP/1.1 ', '\r\n\r\n']);
  let after: UpstreamAnswer['after'] = sound ? 'keep' : r.pick(['keep', 'keep', 'fin', 'fin', 'reset']);
  const complete = readResponse(text, 0, { method, ended: false }).kind === 'response';
  // What is not whole would only be waited for; a few are, so that the clocks are looked at too.
  if (after === 'keep' && !complete && !r.chance(0.03)) after = 'fin';
  const reading = readResponse(text, 0, { method, ended: after === 'fin' });
  const leftover = reading.kind === 'response' ? text.length - reading.next : 0;
  // What comes behind a whole answer must be there with it: once the connection serves again nobody could tell.
  const writes = leftover > 0 ? [text] : segments(text, r);
  return { answer: { writes, after, reusable: after === 'keep' && carriesOn(reading, text.length) }, reading, leftover };
};

const requestOf = (r: Random, path: string, sound: boolean): Pick<Exchange, 'method' | 'minor' | 'request' | 'repeatable'> => {
  const method = sound ? r.pick(['GET', 'GET', 'HEAD']) : r.pick(['GET', 'GET', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS']);
  const minor = r.chance(0.06) ? 0 : 1;
  let fields = `Host: shop.test\r\n${r.chance(0.2) ? 'TE: trailers\r\n' : ''}`;
  let body = '';
  if (method === 'POST' || method === 'PUT') {
    if (minor === 1 && r.chance(0.5)) {
      fields += 'Transfer-Encoding: chunked\r\n';
      body = '5\r\nhello\r\n0\r\n\r\n';
    } else {
      body = r.chance(0.2) ? '' : 'hello';
      fields += `Content-Length: ${body.length}\r\n`;
    }
  }
  const repeatable = (method === 'GET' || method === 'HEAD' || method === 'OPTIONS') && body === '';
  return { method, minor, request: `${method} ${path} HTTP/1.${minor}\r\n${fields}\r\n${body}`, repeatable };
};

/** Case `index` of a run: exchanges one after another on one client connection; every other answer is sound, and shows that the one before left nothing behind. */
export const responseCase = (seed: number, index: number): Exchange[] => {
  const r = randomFrom(mix(seed ^ 0x5bd1e995, index));
  return Array.from({ length: 2 + 2 * r.below(2) }, (_, i) => {
    const sound = i % 2 === 1;
    const path = `/b/${index}-${i}`;
    const request = requestOf(r, path, sound);
    return { ...request, path, ...answerOf(r, `${index}-${i}`, request.method, sound) };
  });
};
