import { AppError } from '@banyan/contracts/errors.ts';
import { prepare } from './call.ts';
import type { ClientRequest, ClientResponse } from './client.ts';
import { METHODS } from './headers.ts';
import { sendProblem } from './problem.ts';

/** The head is beyond the limits, if it is. The parser's own limit is twice as large, because it cannot tell a long target from long fields. */
export const oversize = (req: ClientRequest, maxHeaderBytes: number, headBytes?: number): AppError | null => {
  const target = req.url?.length ?? 0;
  if (target > maxHeaderBytes) return new AppError('uri-too-long', `The request target is larger than ${maxHeaderBytes} bytes`);
  return (headBytes ?? bytesOf(req)) > maxHeaderBytes ? tooLarge(maxHeaderBytes) : null;
};

const bytesOf = (req: ClientRequest): number => {
  let bytes = req.url?.length ?? 0;
  const raw = req.rawHeaders;
  for (let i = 0; i < raw.length; i++) bytes += raw[i]!.length + 2;
  return bytes;
};

const tooLarge = (maxHeaderBytes: number): AppError => new AppError('headers-too-large', `The head is larger than ${maxHeaderBytes} bytes`);

/** The final recipient of OPTIONS and TRACE is whoever gets them with nothing left (RFC 9110 7.6.2). */
export const answersItself = (req: ClientRequest, res: ClientResponse, bodyMs: number): boolean => {
  if ((req.method !== 'OPTIONS' && req.method !== 'TRACE') || req.headers['max-forwards'] !== '0') return false;
  try {
    prepare(req, null, { trusted: () => false });
  } catch (error) {
    sendProblem(req, res, error);
    return true;
  }
  afterBody(req, res, bodyMs, () => {
    if (req.method === 'OPTIONS') {
      res.writeHead(204, 'No Content', ['Allow', METHODS]);
      res.end();
    } else sendProblem(req, res, new AppError('method-not-allowed', 'TRACE is not answered here', { details: { allow: METHODS } }));
  });
  return true;
};

/** A request is answered when it has come as a whole: one whose body breaks the rules is none. A client that waits to be told to send its body is not kept waiting. */
const afterBody = (req: ClientRequest, res: ClientResponse, bodyMs: number, answer: () => void): void => {
  if (req.headers.expect !== undefined || req.complete) {
    answer();
    return;
  }
  const late = setTimeout(() => sendProblem(req, res, new AppError('request-timeout', 'The body did not come in time')), bodyMs);
  res.once('close', () => clearTimeout(late));
  req.on('end', () => {
    clearTimeout(late);
    if (!res.headersSent && !res.destroyed) answer();
  });
  // what is wrong with it the connection's own handler tells the client
  req.on('error', () => clearTimeout(late));
  req.resume();
};

/** What Node's parser means by an error of a connection. */
export const clientFault = (code: string | undefined, maxHeaderBytes: number): AppError => {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return tooLarge(maxHeaderBytes);
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return new AppError('payload-too-large', 'The chunk extensions are too large');
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new AppError('request-timeout', 'The head did not come in time');
    default:
      return new AppError('bad-request', 'This is not HTTP/1.1 as we read it');
  }
};
