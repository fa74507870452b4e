import { AppError } from '@banyan/contracts/errors.ts';
import { Call } from './call.ts';
import { collect } from './collect.ts';
import type { Upstream } from './upstream.ts';

export type Question = {
  /** Default GET; any other goes out with an empty body. */
  readonly method?: string;
  readonly path: string;
  /** Flat pairs besides Host and Accept. */
  readonly headers?: readonly string[];
  /** A larger answer is an error. */
  readonly limitBytes: number;
  /** Until the head of the answer; default the upstream's. */
  readonly timeoutMs?: number;
};

/** A request in the gateway's own name, with nobody's credentials but those given. @throws AppError as `forward`; `upstream-protocol` for an answer that is too large or broke off */
export const askUpstream = async (upstream: Upstream, question: Question): Promise<{ readonly status: number; readonly body: Buffer }> => {
  const host = upstream.authority;
  const { method = 'GET' } = question;
  const call = new Call({
    req: null,
    res: null,
    method,
    target: question.path,
    path: null,
    query: '',
    host,
    headers: ['Host', host, 'accept', 'application/json', ...(question.headers ?? [])],
    chunked: false,
    contentLength: null,
    expectContinue: false,
    clientAddress: '',
    requestId: '',
  });
  const answer = await upstream.forward(call, {
    ...(question.timeoutMs === undefined ? {} : { timeoutMs: question.timeoutMs }),
    ...(method === 'GET' ? {} : { body: Buffer.alloc(0) }),
  });
  const { body, complete } = await collect(answer, question.limitBytes);
  if (body === null || !complete) throw new AppError('upstream-protocol', 'the answer is too large or broke off');
  return { status: answer.status, body };
};
