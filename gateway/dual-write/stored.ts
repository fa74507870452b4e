import { createHash } from 'node:crypto';
import { parse, stringify } from 'lossless-json';
import type { CommandFacts } from '../core/event-mapping.ts';

/** A request or an answer as it is sealed into the ledger. */
export type StoredRequest = {
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
};
/** `body` null: the answer was larger than the limit, only its digest is known. */
export type StoredResponse = {
  readonly status: number;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Buffer | null;
};

/** Never kept: credentials, and what belongs to one connection only (RFC 9110 section 7.6.1). */
const NEVER = new Set([
  'authorization',
  'proxy-authorization',
  'cookie',
  'set-cookie',
  'set-cookie2',
  'proxy-authenticate',
  'connection',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'proxy-connection',
  'content-length',
  'date',
]);

export const encodeRequest = (request: StoredRequest): Buffer => {
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !NEVER.has(name.toLowerCase())));
  const head = Buffer.from(JSON.stringify({ method: request.method, target: request.target, headers }));
  return frame(head, request.body);
};

export const decodeRequest = (bytes: Buffer): StoredRequest => {
  const { head, body } = unframe(bytes);
  return { ...(head as Omit<StoredRequest, 'body'>), body };
};

/** Drops Set-Cookie and hop-by-hop headers, also those that Connection names; keeps order and repeats. */
export const encodeResponse = (response: StoredResponse, limitBytes: number): Buffer => {
  const named = response.headers
    .filter(([name]) => name.toLowerCase() === 'connection')
    .flatMap(([, value]) => value.toLowerCase().split(/\s*,\s*/));
  const headers = response.headers.filter(([name]) => !NEVER.has(name.toLowerCase()) && !named.includes(name.toLowerCase()));
  const kept = response.body !== null && response.body.length <= limitBytes ? response.body : null;
  const digest = kept === null && response.body !== null ? createHash('sha256').update(response.body).digest('hex') : undefined;
  return frame(Buffer.from(JSON.stringify({ status: response.status, headers, kept: kept !== null, digest })), kept ?? Buffer.alloc(0));
};

export const decodeResponse = (bytes: Buffer): StoredResponse => {
  const { head, body } = unframe(bytes);
  const { status, headers, kept } = head as { status: number; headers: [string, string][]; kept: boolean };
  return { status, headers, body: kept ? body : null };
};

const frame = (head: Buffer, body: Buffer): Buffer => {
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32BE(head.length);
  return Buffer.concat([length, head, body]);
};

const unframe = (bytes: Buffer): { head: unknown; body: Buffer } => {
  const end = 4 + bytes.readUInt32BE(0);
  return { head: JSON.parse(bytes.subarray(4, end).toString()), body: bytes.subarray(end) };
};

/** What two requests under one key must share: method, target, content type and every byte of the body. */
export const requestHash = (request: StoredRequest): string => {
  const hash = createHash('sha256');
  for (const part of [request.method, request.target, request.headers['content-type'] ?? '']) hash.update(`${part.length}:${part}`);
  return hash.update(request.body).digest('hex');
};

/** Numbers that a double would change become strings, so that no id is bent on its way into a fact. */
const exactNumber = (token: string): number | string => {
  const value = Number(token);
  return /^-?[0-9]+$/.test(token) && !Number.isSafeInteger(value) ? token : value;
};

/** JSON or form fields as values for a mapping; text as text; undefined for anything that is neither. */
const bodyValue = (contentType: string | undefined, body: Buffer | null): unknown => {
  if (body === null || body.length === 0) return undefined;
  const type = (contentType ?? '').split(';', 1)[0]!.trim().toLowerCase();
  if (type === 'application/x-www-form-urlencoded') {
    const fields = new Map<string, string | string[]>();
    for (const [name, value] of new URLSearchParams(body.toString())) {
      const before = fields.get(name);
      fields.set(name, before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value]);
    }
    return Object.fromEntries(fields);
  }
  if (type !== '' && !/^(application|text)\/([^;]*\+)?json$/.test(type)) return type.startsWith('text/') ? body.toString() : undefined;
  return jsonValue(body.toString());
};

/** Undefined when it is no JSON. */
export const jsonValue = (text: string): unknown => {
  try {
    return parse(text, null, { parseNumber: exactNumber });
  } catch {
    return undefined;
  }
};

/** A part of a JSON text as JSON text, every number as it was written. Undefined when it is no JSON or the part is missing. */
export const jsonPart = (text: string, pick: (root: unknown) => unknown): string | undefined => {
  try {
    const part = pick(parse(text));
    return part === undefined ? undefined : stringify(part);
  } catch {
    return undefined;
  }
};

const lastOf = (headers: StoredResponse['headers']): Record<string, string> =>
  Object.fromEntries(headers.map(([name, value]) => [name.toLowerCase(), value]));

/** What a mapping sees of a request and its answer. */
export const factsOf = (request: StoredRequest, response: StoredResponse | null): CommandFacts => {
  const headers = response === null ? {} : lastOf(response.headers);
  return {
    request: {
      method: request.method,
      target: request.target,
      headers: request.headers,
      body: bodyValue(request.headers['content-type'], request.body),
    },
    response: response === null ? null : { status: response.status, headers, body: bodyValue(headers['content-type'], response.body) },
  };
};
