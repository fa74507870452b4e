import { type Content, type Doubt, type Fault, type Field, framingOf, readChunked, readFields, readLine } from './strict-message.ts';

/** A final response as the one reading has it that every strict reader shares. */
export type StrictResponse = Content & {
  readonly status: number;
  readonly reason: string;
  readonly minor: number;
  readonly fields: readonly Field[];
  readonly framing: 'none' | 'length' | 'chunked' | 'close';
};

export type ResponseReading =
  | { readonly kind: 'response'; readonly response: StrictResponse; readonly interim: readonly StrictResponse[]; readonly next: number }
  /** Ends in the middle. */
  | { readonly kind: 'more'; readonly head: StrictResponse | null; readonly interim: readonly StrictResponse[] }
  | { readonly kind: 'invalid'; readonly why: Fault; readonly head: StrictResponse | null };

/** The reason's space is missing so often that a reader may take it (RFC 9112 4 wants it). */
const STATUS_LINE = /^HTTP\/(\d)\.(\d) (\d{3})( [\t\x20-\x7e\x80-\xff]*)?$/;

/** What any reader takes. */
const MAX_HEAD_BYTES = 60 * 1024;
const MAX_INTERIM = 50;

/** What the reader of a response must know besides its bytes. */
export type ResponseContext = {
  readonly method: string;
  /** No more will come, by a FIN; false = open, or gone in another way. */
  readonly ended: boolean;
};

/** Reads interim responses and the final one behind them from `at` on. Never throws. */
export const readResponse = (text: string, at: number, context: ResponseContext): ResponseReading => {
  const interim: StrictResponse[] = [];
  for (;;) {
    const first = readLine(text, at);
    if (first.kind === 'more') return { kind: 'more', head: null, interim };
    const refuse = (why: Fault): ResponseReading => ({ kind: 'invalid', why, head: null });
    if (first.kind === 'invalid') return refuse(first.why);
    const line = STATUS_LINE.exec(first.text);
    if (line === null) return refuse('start-line');
    const [, major, minorDigit, code, reason] = line;
    const minor = Number(minorDigit);
    const status = Number(code);
    if (major !== '1') return refuse('version');
    if (status < 100) return refuse('status');
    const doubts: Doubt[] = [];
    if (minor > 1) doubts.push('version-minor');
    if (status > 599) doubts.push('status-odd');
    if (reason === undefined) doubts.push('reason-space');
    const fields: Field[] = [];
    const head = readFields(text, first.next, fields, doubts);
    if (head.kind === 'more') return { kind: 'more', head: null, interim };
    if (head.kind === 'invalid') return refuse(head.why);
    if (head.next - at > MAX_HEAD_BYTES) doubts.push('head-size');
    if (interim.length > MAX_INTERIM) doubts.push('interim-flood');
    if (status === 101) return refuse('switch-unasked');
    const framing = framingOf(fields, minor);
    if ('kind' in framing) return refuse(framing.why);
    const bodyless = context.method === 'HEAD' || status < 200 || status === 204 || status === 304;
    if (framing.framing !== 'none' && (status < 200 || status === 204)) doubts.push('length-without-body');
    const response: StrictResponse = {
      status,
      reason: (reason ?? ' ').slice(1),
      minor,
      fields,
      framing: bodyless ? 'none' : framing.framing === 'none' ? 'close' : framing.framing,
      body: '',
      trailers: [],
      doubts,
    };
    if (status < 200) {
      interim.push(response);
      at = head.next;
      continue;
    }
    switch (response.framing) {
      case 'none':
        return { kind: 'response', response, interim, next: head.next };
      case 'length': {
        response.body = text.slice(head.next, head.next + framing.length);
        if (response.body.length < framing.length) return { kind: 'more', head: response, interim };
        return { kind: 'response', response, interim, next: head.next + framing.length };
      }
      case 'close':
        response.body = text.slice(head.next);
        return context.ended ? { kind: 'response', response, interim, next: text.length } : { kind: 'more', head: response, interim };
      case 'chunked': {
        const body = readChunked(text, head.next, response, true);
        if (body.kind === 'more') return { kind: 'more', head: response, interim };
        if (body.kind === 'invalid') return { kind: 'invalid', why: body.why, head: response };
        return { kind: 'response', response, interim, next: body.next };
      }
    }
  }
};
