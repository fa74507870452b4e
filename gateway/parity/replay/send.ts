import { createHash } from 'node:crypto';
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Observation } from '../../core/parity/observation.ts';
import type { Recorded } from './requests.ts';

/** Kept of an answer; of a larger one only a digest. */
const BODY_LIMIT_BYTES = 16 * 1024 * 1024;
const MAX_HEADER_BYTES = 64 * 1024;

export type Answered = { readonly observation: Observation; readonly ms: number };

/** One side of a replay. */
export type Sender = {
  /** Sends once, never again. Never rejects: what went wrong comes back as an incomplete observation. */
  readonly send: (
    request: Pick<Recorded, 'method' | 'target' | 'body'>,
    headers: readonly (readonly [string, string])[],
  ) => Promise<Answered>;
  readonly close: () => void;
};

const whyOf = (error: unknown): string => {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === 'EHOSTUNREACH' || code === 'EAI_AGAIN') return 'unreachable';
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'reset';
  return code.startsWith('HPE_') ? 'protocol' : (error as Error).message === 'timeout' ? 'timeout' : 'failed';
};

const pairsOf = (raw: readonly string[]): [string, string][] => {
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) pairs.push([raw[i]!, raw[i + 1]!]);
  return pairs;
};

const collect = (answer: IncomingMessage, settle: (observation: Observation) => void): void => {
  let chunks: Buffer[] = [];
  let bytes = 0;
  const hash = createHash('sha256');
  const base = { status: answer.statusCode ?? 0, headers: pairsOf(answer.rawHeaders) };
  answer.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
    if (bytes > BODY_LIMIT_BYTES) chunks = [];
    else chunks.push(chunk);
  });
  answer.on('end', () =>
    settle(
      bytes > BODY_LIMIT_BYTES
        ? { ...base, body: null, digest: hash.digest('hex'), complete: true }
        : { ...base, body: bytes === 0 ? null : Buffer.concat(chunks), complete: true },
    ),
  );
  answer.on('close', () => settle({ ...base, body: null, complete: false, why: 'truncated' }));
};

/** Sends recorded requests to the origin (and path prefix) of `url` on kept-alive sockets of its own. */
export const createSender = (url: URL, options: { readonly timeoutMs: number; readonly sockets: number }): Sender => {
  const secure = url.protocol === 'https:';
  const agentOptions = { keepAlive: true, maxSockets: options.sockets, scheduling: 'lifo' } as const;
  const agent = secure ? new HttpsAgent(agentOptions) : new HttpAgent(agentOptions);
  const prefix = url.pathname.replace(/\/$/, '');
  const send: Sender['send'] = ({ method, target, body }, headers) =>
    new Promise((resolve) => {
      const started = performance.now();
      const settle = (observation: Observation): void => {
        clearTimeout(timer);
        resolve({ observation, ms: performance.now() - started });
      };
      const failed = (error: unknown): void => settle({ status: 0, headers: [], body: null, complete: false, why: whyOf(error) });
      const abort = new AbortController();
      const timer = setTimeout(() => {
        failed(new Error('timeout'));
        abort.abort();
      }, options.timeoutMs);
      try {
        const ask = (secure ? httpsRequest : httpRequest)(
          {
            agent,
            protocol: url.protocol,
            hostname: url.hostname.replace(/^\[|\]$/g, ''),
            port: url.port,
            method,
            path: prefix + target,
            headers: headers.flat(),
            setHost: false,
            maxHeaderSize: MAX_HEADER_BYTES,
            signal: abort.signal,
          },
          (answer) => collect(answer, settle),
        );
        ask.on('error', failed);
        ask.on('upgrade', (_answer, socket) => {
          socket.destroy();
          failed(new Error('upgrade'));
        });
        ask.end(body ?? undefined);
      } catch (error) {
        failed(error);
      }
    });
  return { send, close: () => agent.destroy() };
};
