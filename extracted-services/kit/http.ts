import { AppError, problemOf } from '@banyan/contracts/errors.ts';
import type { NextFunction, Request, Response } from 'express';

/** Answers an error as problem+json (RFC 9457), with Retry-After where the error knows one. */
export const sendProblem = (res: Response, error: unknown): void => {
  const problem = problemOf(error);
  if (error instanceof AppError && error.retryAfterSeconds !== undefined) res.set('Retry-After', String(error.retryAfterSeconds));
  res.status(problem.status).type('application/problem+json').send(JSON.stringify(problem));
};

/** The last middleware of a service: whatever was thrown becomes a problem; `log` hears of what nobody expected. */
export const answerProblem =
  (log: (error: unknown) => void) =>
  (error: unknown, _req: Request, res: Response, next: NextFunction): void => {
    if (res.headersSent) {
      next(error);
      return;
    }
    // express and body-parser carry the status of a client's mistake
    const status = error instanceof Error && 'status' in error && typeof error.status === 'number' ? error.status : 500;
    if (error instanceof AppError) sendProblem(res, error);
    else if (status >= 400 && status < 500) sendProblem(res, new AppError('bad-request', (error as Error).message));
    else {
      log(error);
      sendProblem(res, new AppError('internal', 'Something went wrong inside the service', { cause: error }));
    }
  };
