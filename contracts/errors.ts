/** Had the upstream begun to see the request? Decides whether a retry or a fallback is legal. */
export type Sent = 'no' | 'maybe' | 'yes';

/** Stable codes; each has a page at docs/problems/<code>.md. */
export const ERROR_CODES = [
  'bad-request',
  'unauthorized',
  'forbidden',
  'not-found',
  'conflict',
  'stale-version',
  'illegal-move',
  'unprocessable',
  'payload-too-large',
  'unsupported-media-type',
  'method-not-allowed',
  'expectation-failed',
  'request-timeout',
  'uri-too-long',
  'headers-too-large',
  'key-reused',
  'answer-lost',
  'context-unavailable',
  'context-frozen',
  'store-unavailable',
  'backlog-full',
  'upstream-unreachable',
  'upstream-timeout',
  'upstream-reset',
  'upstream-protocol',
  'breaker-open',
  'client-left',
  'draining',
  'overloaded',
  'not-configured',
  'internal',
] as const;
export type ErrorCode = (typeof ERROR_CODES)[number];

export type AppErrorOptions = {
  /** May the same call succeed later without a change? Default false. */
  readonly retryable?: boolean;
  /** Default `no`. */
  readonly sent?: Sent;
  readonly cause?: unknown;
  /** Whole seconds for `Retry-After`. */
  readonly retryAfterSeconds?: number;
  /** Safe to show to a client; bounded, no secrets. */
  readonly details?: Readonly<Record<string, unknown>>;
};

/** Every error we throw. `message` is safe to show; what is not stays in `cause`. The core knows no HTTP: a table at each edge turns `code` into a status. */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly sent: Sent;
  readonly retryAfterSeconds: number | undefined;
  readonly details: Readonly<Record<string, unknown>> | undefined;
  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'AppError';
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.sent = options.sent ?? 'no';
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.details = options.details;
  }
}

/** HTTP status of each code; the one table every edge uses. */
export const STATUS_OF: Readonly<Record<ErrorCode, number>> = {
  'bad-request': 400,
  unauthorized: 401,
  forbidden: 403,
  'not-found': 404,
  conflict: 409,
  'stale-version': 409,
  'illegal-move': 409,
  unprocessable: 422,
  'payload-too-large': 413,
  'unsupported-media-type': 415,
  'method-not-allowed': 405,
  'expectation-failed': 417,
  'request-timeout': 408,
  'uri-too-long': 414,
  'headers-too-large': 431,
  'key-reused': 422,
  'answer-lost': 409,
  'context-unavailable': 503,
  'context-frozen': 503,
  'store-unavailable': 503,
  'backlog-full': 503,
  'upstream-unreachable': 502,
  'upstream-timeout': 504,
  'upstream-reset': 502,
  'upstream-protocol': 502,
  'breaker-open': 503,
  'client-left': 499,
  draining: 503,
  overloaded: 503,
  'not-configured': 409,
  internal: 500,
};

/** An RFC 9457 problem document. Extension members are camelCase. */
export type Problem = {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail?: string;
  readonly code: ErrorCode;
  readonly [extension: string]: unknown;
};

const TITLES: Partial<Record<ErrorCode, string>> = {
  'context-unavailable': 'The context cannot take this request just now',
  'context-frozen': 'Write ownership is being handed over',
  'upstream-timeout': 'The upstream did not answer in time',
  'upstream-unreachable': 'The upstream could not be reached',
  'upstream-reset': 'The upstream broke off',
  'key-reused': 'This Idempotency-Key was used with another request',
  'uri-too-long': 'The request target is too long',
  'headers-too-large': 'The head of the request is too large',
  'stale-version': 'Somebody else changed it first',
};

/** Turns anything thrown into a problem; an unknown error becomes `internal` and leaks nothing. */
export const problemOf = (error: unknown): Problem => {
  const known = error instanceof AppError ? error : new AppError('internal', 'Something went wrong inside the gateway', { cause: error });
  const title = TITLES[known.code] ?? known.code.replaceAll('-', ' ').replace(/^./, (c) => c.toUpperCase());
  return {
    type: `https://banyan.dev/problems/${known.code}`,
    title,
    status: STATUS_OF[known.code],
    detail: known.message,
    code: known.code,
    ...(known.details ?? {}),
  };
};
