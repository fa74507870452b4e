import { type RawConnection, type RawServer, rawServer } from '../harness/raw-http.ts';
import type { Bytes, UpstreamStep } from './case.ts';
import type { Signals } from './signals.ts';

/** A request as an upstream saw it. */
export type Seen = {
  readonly line: string;
  readonly fields: readonly (readonly [string, string])[];
  body: Buffer;
  trailers: readonly (readonly [string, string])[];
  framing: 'length' | 'chunked' | 'none';
  complete: boolean;
  /** Across all upstreams of a play, in order of arrival. */
  readonly order: number;
};

/** One case being played; shared by its upstreams. */
export type Play = {
  readonly script: readonly (readonly UpstreamStep[])[];
  readonly signals: Signals;
  arrived: number;
  /** What an upstream was sent that a strict reader may not accept, or could read in two ways. */
  readonly violations: string[];
};

export type ScriptedUpstream = {
  readonly port: number;
  /** From now on requests belong to this play; gives the list that they are noted in. */
  begin(play: Play): Seen[];
  close(): Promise<void>;
};

const TOKEN = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+";
const REQUEST_LINE = new RegExp(`^${TOKEN} [\\x21-\\x7e\\x80-\\xff]+ HTTP/1\\.[01]$`);
const FIELD_LINE = new RegExp(`^${TOKEN}:[\\t\\x20-\\x7e\\x80-\\xff]*$`);
const CHUNK_SIZE = /^[0-9A-Fa-f]{1,8}(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n$/;
/** The play between cases asks for this; what it gives proves that no answer slipped. */
export const FENCE = '/conformance-fence/';

export const bytesOf = (bytes: Bytes): string => (typeof bytes === 'string' ? bytes : bytes.fill.repeat(bytes.times));

class Unreadable extends Error {}

/** Reads a request as RFC 9112 has it and nothing else. @throws Unreadable */
const readHead = async (connection: RawConnection): Promise<Seen & { length: number }> => {
  const { line, raw } = await connection.head();
  const unreadable = (why: string): never => {
    throw new Unreadable(`${why} in ${JSON.stringify(raw.slice(0, 400))}`);
  };
  if (!REQUEST_LINE.test(line)) unreadable('a malformed request line');
  const fields: [string, string][] = [];
  for (const text of raw.slice(line.length + 2, -4).split('\r\n')) {
    if (text === '') continue;
    if (!FIELD_LINE.test(text)) unreadable(`a malformed field line ${JSON.stringify(text)}`);
    const colon = text.indexOf(':');
    fields.push([text.slice(0, colon), text.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, '')]);
  }
  const valuesOf = (name: string): string[] => fields.filter(([field]) => field.toLowerCase() === name).map(([, value]) => value);
  const lengths = valuesOf('content-length');
  const codings = valuesOf('transfer-encoding');
  const hosts = valuesOf('host').length;
  if (hosts > 1 || (hosts === 0 && line.endsWith('1.1'))) unreadable(`${hosts} Host fields`);
  if (lengths.length > 1 || (lengths[0] !== undefined && !/^\d{1,15}$/.test(lengths[0]))) unreadable('a doubtful Content-Length');
  if (codings.length > 1 || (codings[0] !== undefined && codings[0].toLowerCase() !== 'chunked'))
    unreadable('a doubtful Transfer-Encoding');
  if (lengths.length > 0 && codings.length > 0) unreadable('both Content-Length and Transfer-Encoding');
  if (codings.length > 0 && line.endsWith('1.0')) unreadable('Transfer-Encoding in HTTP/1.0');
  const framing = codings.length > 0 ? 'chunked' : lengths.length > 0 ? 'length' : 'none';
  const length = Number(lengths[0] ?? 0);
  const complete = framing !== 'chunked' && length === 0;
  return { line, fields, body: Buffer.alloc(0), trailers: [], framing, length, complete, order: 0 };
};

const readBody = async (connection: RawConnection, seen: Seen, length: number): Promise<void> => {
  if (seen.framing === 'length' && length > 0) {
    // Piece by piece, so that a body cut short is still noted as far as it came.
    for (let left = length; left > 0; ) {
      const size = Math.min(left, 64 * 1024);
      seen.body = Buffer.concat([seen.body, await connection.bytes(size)]);
      left -= size;
    }
  }
  if (seen.framing !== 'chunked') return;
  seen.complete = false;
  for (;;) {
    const line = await connection.until('\n');
    if (!CHUNK_SIZE.test(line)) throw new Unreadable(`a malformed chunk size ${JSON.stringify(line)}`);
    const size = Number.parseInt(line, 16);
    if (size === 0) break;
    const chunk = await connection.bytes(size + 2);
    if (chunk.toString('latin1', size) !== '\r\n') throw new Unreadable('a chunk without its CRLF');
    seen.body = Buffer.concat([seen.body, chunk.subarray(0, size)]);
  }
  const trailers: [string, string][] = [];
  for (;;) {
    const line = (await connection.until('\n')).slice(0, -2);
    if (line === '') break;
    if (!FIELD_LINE.test(line)) throw new Unreadable(`a malformed trailer ${JSON.stringify(line)}`);
    const colon = line.indexOf(':');
    trailers.push([line.slice(0, colon), line.slice(colon + 1).trim()]);
  }
  seen.trailers = trailers;
};

/** An origin server that reads strictly and answers by script. `port` 0 = a free one. */
export const openScriptedUpstream = async (port = 0): Promise<ScriptedUpstream> => {
  let play: Play | null = null;
  let list: Seen[] = [];

  /** False = the connection is over. */
  const react = async (connection: RawConnection, seen: Seen & { length: number }, now: Play, index: number): Promise<boolean> => {
    const steps = now.script[Math.min(index, now.script.length - 1)] ?? [];
    let bodyRead = false;
    const body = async (): Promise<void> => {
      if (bodyRead) return;
      bodyRead = true;
      await readBody(connection, seen, seen.length);
      seen.complete = true;
      now.signals.give('message');
    };
    for (const step of steps) {
      if (step === 'body') await body();
      else if (step === 'gone') {
        await connection.rest();
        now.signals.give('gone');
        connection.destroy();
        return false;
      } else if (step === 'end') {
        connection.end();
        return false;
      } else if (step === 'reset') {
        connection.reset();
        return false;
      } else if (typeof step === 'string' || 'fill' in step) connection.write(bytesOf(step));
      else if ('until' in step) await connection.until(step.until);
      else if ('await' in step) await now.signals.wait(step.await);
      else now.signals.give(step.signal);
    }
    await body();
    return true;
  };

  const serve = async (connection: RawConnection): Promise<void> => {
    for (;;) {
      let now = play;
      try {
        const seen = await readHead(connection).catch((error: unknown) => {
          if (!(error instanceof Unreadable) && connection.pending !== '' && !connection.pending.startsWith(`GET ${FENCE}`))
            play?.violations.push(`an upstream was sent part of a request: ${JSON.stringify(connection.pending.slice(0, 200))}`);
          throw error;
        });
        now = play;
        const [, target = ''] = seen.line.split(' ');
        if (target.startsWith(FENCE)) {
          const mark = target.slice(FENCE.length);
          connection.write(`HTTP/1.1 200 OK\r\nContent-Length: ${mark.length}\r\n\r\n${mark}`);
          continue;
        }
        // A proxy that looks whether its upstream is there; no case asks for this.
        if (seen.line.startsWith('HEAD / ')) {
          connection.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
          continue;
        }
        if (now === null) return;
        const noted = Object.assign(seen, { order: now.arrived++ });
        const index = list.push(noted) - 1;
        now.signals.give('head');
        if (!(await react(connection, noted, now, index))) return;
      } catch (error) {
        if (error instanceof Unreadable) now?.violations.push(`an upstream was sent ${error.message}`);
        now?.signals.give('gone');
        throw error;
      }
    }
  };

  const server: RawServer = await rawServer(serve, port);
  return {
    port: server.port,
    begin(next) {
      play = next;
      list = [];
      return list;
    },
    close: () => server.close(),
  };
};
