import { STATUS_CODES } from 'node:http';
import type { AppError } from '@banyan/contracts/errors.ts';
import { Answer, type Source } from './answer.ts';

const NO_SOURCE: Source = { pause: () => undefined, resume: () => undefined, abort: () => undefined };

const NO_BODY = new Set([204, 205, 304]);

/**
 * An answer that is whole already: a stored one, or one whose body was kept back until its outcome was safe. `rawHeaders` is taken over.
 * What was not stored is filled in: an empty `reason` by the status's usual phrase, Content-Length by the body's.
 */
export const wholeAnswer = (
  status: number,
  reason: string,
  rawHeaders: string[],
  body: Buffer,
  trailers: readonly string[] = [],
): Answer => {
  const framed = NO_BODY.has(status) || trailers.length > 0 || rawHeaders.some((name, i) => i % 2 === 0 && /^content-length$/i.test(name));
  if (!framed) rawHeaders.push('content-length', String(body.length));
  const answer = new Answer(status, reason === '' ? (STATUS_CODES[status] ?? '') : reason, rawHeaders, NO_SOURCE);
  if (body.length > 0) answer.push(body);
  answer.finish(trailers);
  return answer;
};

/** An answer of which at most `limitBytes` were held back. */
export type HeldBack = {
  /** The whole body, or null when it is larger than the limit or broke off. */
  readonly body: Buffer | null;
  readonly complete: boolean;
  readonly error: AppError | null;
  /** The same answer, to be replied now: what was held comes first, the rest flows behind it. */
  release(): Answer;
};

/**
 * Holds an answer back until it is whole or larger than `limitBytes`; then the upstream is paused, and `release()` lets it flow.
 * Never rejects; an answer that broke off is released as broken off.
 */
export const holdBack = (answer: Answer, limitBytes: number): Promise<HeldBack> =>
  new Promise((resolve) => {
    const held: Buffer[] = [];
    let bytes = 0;
    let released: Answer | null = null;
    let wanted = true;
    let settled = false;
    let ended: readonly string[] | null = null;
    let broke: AppError | null = null;

    const release = (): Answer => {
      const relay = new Answer(answer.status, answer.reason, answer.rawHeaders, {
        pause: () => {
          wanted = false;
        },
        resume: () => {
          wanted = true;
          answer.resume();
        },
        abort: (reason) => answer.abort(reason),
      });
      released = relay;
      for (const chunk of held.splice(0)) relay.push(chunk);
      if (broke) relay.break(broke);
      else if (ended) relay.finish(ended);
      else if (wanted) answer.resume();
      return relay;
    };
    const settle = (): void => {
      if (settled) return;
      settled = true;
      const whole = ended !== null && bytes <= limitBytes;
      resolve({ body: whole ? Buffer.concat(held) : null, complete: ended !== null, error: broke, release });
    };

    answer.consume({
      data: (chunk) => {
        if (released) {
          released.push(chunk);
          return wanted;
        }
        held.push(chunk);
        bytes += chunk.length;
        if (bytes <= limitBytes) return true;
        settle();
        return false;
      },
      end: (trailers) => {
        ended = trailers;
        if (released) released.finish(trailers);
        else settle();
      },
      fail: (error) => {
        broke = error;
        if (released) released.break(error);
        else settle();
      },
    });
  });
