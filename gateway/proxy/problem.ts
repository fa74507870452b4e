import { STATUS_CODES } from 'node:http';
import { AppError, problemOf } from '@banyan/contracts/errors.ts';
import type { ClientRequest, ClientResponse } from './client.ts';
import { breakOff, closeAfterReply, markRefused } from './connection.ts';
import { proxyStatusOf } from './failures.ts';
import { PSEUDONYM } from './headers.ts';

/**
 * Answers with an error of the gateway's own: problem+json (RFC 9457) with `Proxy-Status` (RFC 9209). When an answer has begun, or the client
 * has left, there is nothing to say: the connection is broken off. Never throws.
 */
export const sendProblem = (req: ClientRequest, res: ClientResponse, error: unknown): void => {
  if (res.writableEnded || res.destroyed) return;
  const known = error instanceof AppError ? error : new AppError('internal', 'Something went wrong inside the gateway', { cause: error });
  if (res.headersSent || known.code === 'client-left') {
    breakOff(res);
    return;
  }
  const problem = problemOf(known);
  const body = Buffer.from(JSON.stringify(problem));
  const headers = [
    'Content-Type',
    'application/problem+json',
    'Content-Length',
    String(body.length),
    'Cache-Control',
    'no-store',
    'Proxy-Status',
    `${PSEUDONYM}; error=${proxyStatusOf(known)}`,
  ];
  if (known.retryAfterSeconds !== undefined) headers.push('Retry-After', String(known.retryAfterSeconds));
  if (typeof known.details?.location === 'string') headers.push('Location', known.details.location);
  if (known.code === 'method-not-allowed' && typeof known.details?.allow === 'string') headers.push('Allow', known.details.allow);
  const ownConnection = res.stream === undefined;
  if (ownConnection && known.code === 'bad-request') markRefused(req.socket);
  // Not `req.complete` alone: it is false for a GET too until its (empty) body has been read.
  const bodyDue = !req.complete && ('transfer-encoding' in req.headers || (req.headers['content-length'] ?? '0') !== '0');
  if (bodyDue) closeAfterReply(req, res);
  else if (ownConnection && known.code === 'bad-request') res.shouldKeepAlive = false;
  for (const name of res.getHeaderNames()) res.removeHeader(name);
  res.writeHead(problem.status, STATUS_CODES[problem.status] ?? '', headers);
  res.end(body);
};
