import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import type { RawMessage } from '../harness/raw-http.ts';
import { Interpreter, type Spoken } from './over-http2.ts';
import type { Client } from './play.ts';

/** The answer to one request as it comes. */
class Answer {
  readonly stream: ClientHttp2Stream;
  readonly interim: RawMessage[] = [];
  head: Pick<RawMessage, 'line' | 'fields' | 'raw'> | null = null;
  trailers: [string, string][] = [];
  readonly parts: Buffer[] = [];
  ended = false;
  closed = false;
  headTaken = false;

  constructor(stream: ClientHttp2Stream, stir: () => void) {
    this.stream = stream;
    stream.on('error', () => undefined);
    stream.on('headers', (_fields, _flags, raw: string[]) => {
      this.interim.push({ ...headOf(raw), body: Buffer.alloc(0), trailers: [], complete: true });
      stir();
    });
    stream.on('response', (_fields, _flags, raw) => {
      this.head = headOf(raw as unknown as string[]);
      stir();
    });
    stream.on('trailers', (_fields, _flags, raw) => {
      this.trailers = pairsOf(raw as unknown as string[]);
    });
    stream.on('data', (chunk: Buffer) => {
      this.parts.push(chunk);
      stir();
    });
    stream.on('end', () => {
      this.ended = true;
    });
    stream.on('close', () => {
      this.closed = true;
      stir();
    });
  }

  get whole(): RawMessage {
    const complete = this.ended && this.stream.rstCode === constants.NGHTTP2_NO_ERROR;
    return { ...this.head!, body: Buffer.concat(this.parts), trailers: this.trailers, complete };
  }
}

const pairsOf = (raw: readonly string[]): [string, string][] => {
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) pairs.push([raw[i]!, raw[i + 1]!]);
  return pairs;
};

const headOf = (raw: readonly string[]): Pick<RawMessage, 'line' | 'fields' | 'raw'> => {
  const pairs = pairsOf(raw);
  const status = pairs.find(([name]) => name === ':status')?.[1] ?? '';
  const fields = pairs.filter(([name]) => !name.startsWith(':'));
  return { line: `HTTP/2 ${status}`, fields, raw: fields.map(([name, value]) => `${name}: ${value}\r\n`).join('') };
};

/** Plays the client of a case by HTTP/2: takes its bytes for what they mean, one stream for each request. */
class Http2Client implements Client {
  readonly #session: ClientHttp2Session;
  #answer: Answer | null = null;
  #interpreter: Interpreter;
  #wake: (() => void)[] = [];
  #taken = 0;

  constructor(session: ClientHttp2Session) {
    this.#session = session;
    this.#interpreter = new Interpreter({
      request: (spoken) => this.#ask(spoken),
      body: (bytes) => this.#answer!.stream.write(Buffer.from(bytes, 'latin1')),
      end: (trailers) => {
        const { stream } = this.#answer!;
        stream.once('wantTrailers', () => stream.sendTrailers(Object.fromEntries(trailers)));
        stream.end();
      },
    });
  }

  write(bytes: string): void {
    this.#interpreter.write(bytes);
  }

  end(): void {
    this.#session.close();
  }

  reset(): void {
    this.#answer?.stream.close(constants.NGHTTP2_CANCEL);
  }

  destroy(): void {
    this.#session.destroy();
  }

  async rest(): Promise<string> {
    await this.#until(() => this.#answer?.closed !== false);
    return '';
  }

  async until(mark: string): Promise<string> {
    const answer = this.#answer!;
    const body = () => Buffer.concat(answer.parts).toString('latin1').slice(this.#taken);
    await this.#until(() => body().includes(mark) || answer.closed);
    const text = body();
    if (!text.includes(mark)) throw new Error(`The stream ended before ${JSON.stringify(mark)}; got ${JSON.stringify(text)}`);
    const upTo = text.indexOf(mark) + mark.length;
    this.#taken += upTo;
    return text.slice(0, upTo);
  }

  async head(): Promise<Pick<RawMessage, 'line' | 'fields' | 'raw'>> {
    const answer = this.#answer!;
    await this.#until(() => answer.head !== null || answer.closed);
    if (answer.head === null) throw new Error('The stream ended without an answer');
    return answer.head;
  }

  async message(): Promise<RawMessage> {
    const answer = this.#answer!;
    await this.#until(() => answer.interim.length > 0 || answer.closed);
    const interim = answer.interim.shift();
    if (interim !== undefined) return interim;
    if (answer.head === null) throw new Error('The stream ended without an answer');
    return answer.whole;
  }

  #ask({ method, target, host, fields, body }: Spoken): void {
    const raw = [':method', method, ':scheme', 'http', ':authority', host, ':path', target, ...fields.flat()];
    const endStream = body === 'none' || (typeof body === 'object' && body.length === 0);
    this.#taken = 0;
    const stream = this.#session.request(raw, { endStream, waitForTrailers: body === 'chunked' });
    this.#answer = new Answer(stream, () => this.#stir());
  }

  async #until(holds: () => boolean): Promise<void> {
    while (!holds())
      await new Promise<void>((resolve) => {
        this.#wake.push(resolve);
      });
  }

  #stir(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

/** Fields may be repeated that Node would hold to be single; the types of Node 24 do not know this option yet. */
const LENIENT: object = { strictSingleValueFields: false, maxSendHeaderBlockLength: 1_048_576 };

/** A connection of HTTP/2 to a port on loopback, by prior knowledge. */
export const http2Client = (port: number): Promise<Client> =>
  new Promise((resolve, reject) => {
    const session = connect(`http://127.0.0.1:${port}`, LENIENT);
    session.once('error', reject);
    session.once('connect', () => {
      session.on('error', () => undefined);
      resolve(new Http2Client(session));
    });
  });
