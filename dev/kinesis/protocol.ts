import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import { setTimeout as pause } from 'node:timers/promises';
import { KinesisError, validation } from './errors.ts';
import { type Faults, faultRules } from './faults.ts';
import type { Limits } from './limits.ts';
import type { Operation } from './requests.ts';
import { Subscription } from './subscriptions.ts';

export type HttpRequest = IncomingMessage | Http2ServerRequest;
export type HttpResponse = ServerResponse | Http2ServerResponse;

/** Runs one operation on a parsed JSON body; `region` is the one that the request was signed for. */
export type Run = (operation: Operation, body: unknown, region: string) => Promise<object>;

export type ProtocolDeps = {
  readonly limits: Limits;
  readonly knows: (operation: string) => operation is Operation;
  readonly run: Run;
  readonly faults: Faults;
  readonly warn: (line: string) => void;
};

const TARGET = 'Kinesis_20131202.';
const CONTENT_TYPE = 'application/x-amz-json-1.1';

/** Where a test that runs in another process scripts faults. A browser cannot PUT across origins without asking, which is never allowed. */
const FAULTS = '/_emulator/faults';

/** Ends the connection, or the HTTP/2 stream, without an answer. */
const cut = (req: HttpRequest): void => {
  if ('stream' in req) req.stream.destroy(new Error('cut (scripted)'));
  else req.socket.destroy();
};

const gone = (res: HttpResponse): boolean => (res as ServerResponse).destroyed || ('stream' in res && res.stream.destroyed);

/** What a fault does before the operation runs. `hang` ends when the client leaves. */
const before = async (fault: { kind: string; ms: number }, operation: string, req: HttpRequest, res: HttpResponse): Promise<void> => {
  switch (fault.kind) {
    case 'throttle':
      throw new KinesisError('ProvisionedThroughputExceededException', `Rate exceeded for ${operation} (scripted).`);
    case 'error':
      throw new KinesisError('InternalFailure', `${operation} failed (scripted).`, 500);
    case 'outage':
      cut(req);
      return;
    case 'delay':
      await pause(fault.ms, undefined, { ref: false });
      return;
    case 'hang':
      if (operation !== 'SubscribeToShard') await new Promise<void>((resolve) => void res.once('close', resolve));
  }
};

const tooLarge = (limit: number): KinesisError =>
  new KinesisError('RequestEntityTooLargeException', `The request body exceeds ${limit} bytes.`, 413);

/** A body that is refused is still read to its end, up to this many times the limit, because a client that writes does not read the answer. */
const DISCARD = 8;

/** Collects the body within `limit` bytes and within what all requests together may hold. Rejects when the client leaves. */
const readBody = (req: HttpRequest, limit: number, reserve: (bytes: number) => void): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    let chunks: Buffer[] = [];
    let bytes = 0;
    let refusal: unknown;
    req.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (refusal === undefined) {
        try {
          if (bytes > limit) throw tooLarge(limit);
          reserve(chunk.length);
          chunks.push(chunk);
        } catch (error) {
          refusal = error;
          chunks = [];
        }
      } else if (bytes > DISCARD * limit) req.destroy();
    });
    req.on('end', () => (refusal === undefined ? resolve(Buffer.concat(chunks, bytes)) : reject(refusal as Error)));
    req.on('error', reject);
    req.on('close', () => reject(new Error('the client left')));
  });

const parseJson = (body: Buffer): unknown => {
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch {
    throw new KinesisError('SerializationException', 'The request body is not JSON.');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new KinesisError('SerializationException', 'The request body is not a JSON object.');
  return value;
};

/** `Credential=KEY/20260101/eu-west-1/kinesis/aws4_request`; the signature itself is not verified. */
const regionOf = (authorization: string | undefined): string =>
  /Credential=[^/]*\/\d+\/([a-z0-9-]+)\//.exec(authorization ?? '')?.[1] ?? 'us-east-1';

const send = (res: HttpResponse, status: number, headers: Record<string, string | number>, body: string): void => {
  // Both response classes have the same methods, but their overloads do not unite.
  const out = res as ServerResponse;
  if (out.destroyed || out.headersSent) return;
  out.writeHead(status, { 'content-type': CONTENT_TYPE, 'content-length': Buffer.byteLength(body), ...headers });
  out.end(body);
};

/**
 * AWS JSON 1.1 (smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html): POST with the operation in `x-amz-target`, errors as
 * `{"__type", "message"}` plus `x-amzn-errortype`. The current SDK sends JSON, not CBOR. Never rejects.
 */
export const createProtocol = (d: ProtocolDeps): ((req: HttpRequest, res: HttpResponse) => Promise<void>) => {
  let inFlight = 0;
  return async (req, res) => {
    const id = randomUUID();
    let reserved = 0;
    const reserve = (bytes: number): void => {
      if (inFlight > 0 && inFlight + bytes > d.limits.inFlightBytes)
        throw new KinesisError('ServiceUnavailable', `${inFlight} bytes of requests are in flight already.`, 503);
      inFlight += bytes;
      reserved += bytes;
    };
    try {
      if (req.url === FAULTS) {
        if (req.method !== 'PUT')
          throw new KinesisError('UnknownOperationException', `${FAULTS} takes PUT with a list of rules in JSON.`, 405);
        const rules = faultRules.safeParse(JSON.parse((await readBody(req, 65_536, reserve)).toString()));
        if (!rules.success) throw validation(rules.error.issues.map((issue) => `${issue.path.join('.') || 'rules'}: ${issue.message}`));
        d.faults.set(rules.data);
        send(res, 200, {}, '');
        return;
      }
      const target = req.headers['x-amz-target'];
      const operation = typeof target === 'string' && target.startsWith(TARGET) ? target.slice(TARGET.length) : undefined;
      if (req.method !== 'POST' || operation === undefined)
        throw new KinesisError('UnknownOperationException', `This is a Kinesis endpoint: POST with x-amz-target ${TARGET}OPERATION.`, 404);
      // Browsers cannot send this type across origins without asking first, and we never allow it.
      if (!String(req.headers['content-type'] ?? '').startsWith(CONTENT_TYPE))
        throw new KinesisError('UnknownOperationException', `The content type must be ${CONTENT_TYPE}.`, 404);
      if (!d.knows(operation))
        throw new KinesisError('UnknownOperationException', `The emulator does not know the operation ${operation}.`);
      const body = parseJson(await readBody(req, d.limits.bodyBytes, reserve));
      const fault = d.faults.strike(operation);
      if (fault) await before(fault, operation, req, res);
      if (fault?.kind === 'outage' || gone(res)) return;
      const answer = await d.run(operation, body, regionOf(req.headers.authorization));
      if (fault?.kind === 'error-after')
        throw new KinesisError('InternalFailure', 'The request was carried out; then the service failed.', 500);
      if (fault?.kind === 'lost') {
        cut(req);
        return;
      }
      if (answer instanceof Subscription) {
        const out = res as ServerResponse;
        if (gone(res)) return;
        out.writeHead(200, { 'content-type': 'application/vnd.amazon.eventstream', 'x-amzn-requestid': id });
        answer.send(res);
        return;
      }
      const text = Object.keys(answer).length === 0 ? '' : JSON.stringify(answer);
      send(res, 200, { 'x-amzn-requestid': id }, text);
    } catch (error) {
      if (req.destroyed && !req.complete) return; // nobody is there to answer
      const known = error instanceof KinesisError;
      if (!known) d.warn(`request ${id} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      const { type, message, status } = known ? error : new KinesisError('InternalFailure', 'The emulator failed; see its output.', 500);
      send(res, status, { 'x-amzn-requestid': id, 'x-amzn-errortype': type }, JSON.stringify({ __type: type, message }));
    } finally {
      inFlight -= reserved;
    }
  };
};
