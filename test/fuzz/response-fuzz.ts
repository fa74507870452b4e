import { connect, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { type Got, judgeResponse, type ResponseOutcome } from './judge-responses.ts';
import { type Exchange, responseCase } from './responses.ts';
import { readResponse } from './strict-response.ts';
import type { FuzzUpstream, Sighting, UpstreamAnswer } from './upstream.ts';

/** A proxy in front of upstreams that answer what `react` gives them. */
export type ResponseStand = { readonly port: number; readonly upstreams: readonly FuzzUpstream[]; readonly patienceMs: number };

export type ResponseFailure = {
  readonly case: number;
  readonly exchange: number;
  readonly faults: readonly string[];
  readonly sent: readonly string[];
  readonly after: string;
  readonly request: string;
  readonly got: string;
};

export type ResponseTally = {
  exchanges: number;
  readonly outcomes: Record<ResponseOutcome, number>;
  readonly readings: Record<string, number>;
  readonly failures: ResponseFailure[];
};

/** Exchanges under way, by target: what the upstreams answer with, and how often they were asked. */
export class Script {
  readonly #under = new Map<string, { readonly exchange: Exchange; times: number }>();

  begin(exchange: Exchange): void {
    this.#under.set(exchange.path, { exchange, times: 0 });
  }

  /** How often it was asked for. */
  end(exchange: Exchange): number {
    const { times } = this.#under.get(exchange.path)!;
    this.#under.delete(exchange.path);
    return times;
  }

  readonly react = ({ request }: Sighting): UpstreamAnswer => {
    const known = this.#under.get(request.path);
    if (known === undefined) return { writes: ['HTTP/1.1 500 Nobody Asked\r\nContent-Length: 0\r\n\r\n'], after: 'fin' };
    known.times++;
    return known.exchange.answer;
  };
}

/** In the head of the last answer. */
const saysClose = (text: string): boolean => /\r\nconnection: close\r\n/i.test(text.slice(0, text.lastIndexOf('\r\n\r\n') + 4));

/** A client's connection, one exchange at a time. */
class Client {
  readonly #port: number;
  readonly #patienceMs: number;
  #socket: Socket | null = null;
  #text = '';
  #wake: (() => void) | null = null;
  #end: Got['end'] = 'open';

  constructor(port: number, patienceMs: number) {
    this.#port = port;
    this.#patienceMs = patienceMs;
  }

  #open(): Socket {
    this.#text = '';
    this.#end = 'open';
    const socket = connect({ port: this.#port, host: '127.0.0.1', noDelay: true });
    socket.on('data', (chunk) => {
      if (this.#socket !== socket) return;
      this.#text += chunk.toString('latin1');
      this.#wake?.();
    });
    socket.on('end', () => {
      if (this.#socket === socket) this.#end = 'fin';
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      if (this.#socket !== socket) return;
      if (this.#end === 'open') this.#end = 'reset';
      this.#socket = null;
      this.#wake?.();
    });
    return socket;
  }

  async exchange({ request, method, minor }: Exchange): Promise<Got> {
    if (this.#end !== 'open') this.close();
    this.#socket ??= this.#open();
    const socket = this.#socket;
    socket.write(request, 'latin1');
    const deadline = setTimeout(() => {
      this.#end = 'hung';
      socket.destroy();
    }, this.#patienceMs);
    for (;;) {
      const reading = readResponse(this.#text, 0, { method, ended: this.#end === 'fin' });
      if (this.#socket === null || (reading.kind === 'response' && this.#end === 'open')) break;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    clearTimeout(deadline);
    // What comes behind the answer would come now.
    await new Promise((resolve) => setImmediate(resolve));
    const got: Got = { text: this.#text, end: this.#end };
    this.#text = '';
    if (this.#end === 'open' && (minor === 0 || saysClose(got.text))) this.close();
    return got;
  }

  close(): void {
    this.#socket?.destroy();
    this.#socket = null;
    this.#end = 'open';
  }
}

export type ResponseRun = {
  readonly seed: number;
  readonly exchanges: number;
  readonly first?: number;
  readonly atOnce?: number;
  readonly maxFailures?: number;
};

const AT_ONCE = 32;

/** Plays cases until so many answers have been asked for. */
export const fuzzResponses = async (stand: ResponseStand & { readonly script: Script }, run: ResponseRun): Promise<ResponseTally> => {
  const { script, upstreams } = stand;
  const tally: ResponseTally = {
    exchanges: 0,
    outcomes: { delivered: 0, refused: 0, 'broken-off': 0, nothing: 0 },
    readings: {},
    failures: [],
  };
  const { maxFailures = 20 } = run;
  let next = run.first ?? 0;
  const worker = async (): Promise<void> => {
    while (tally.exchanges < run.exchanges && tally.failures.length < maxFailures) {
      const index = next++;
      const client = new Client(stand.port, stand.patienceMs);
      for (const [i, exchange] of responseCase(run.seed, index).entries()) {
        tally.exchanges++;
        script.begin(exchange);
        const got = await client.exchange(exchange);
        const { faults, outcome } = judgeResponse(exchange, got, script.end(exchange), upstreams.length);
        tally.outcomes[outcome]++;
        const { reading, answer, request } = exchange;
        const kind =
          reading.kind === 'invalid' ? reading.why : reading.kind === 'more' ? 'incomplete' : exchange.leftover > 0 ? 'leftover' : 'whole';
        tally.readings[kind] = (tally.readings[kind] ?? 0) + 1;
        if (faults.length > 0)
          tally.failures.push({ case: index, exchange: i, faults, sent: answer.writes, after: answer.after, request, got: got.text });
      }
      client.close();
    }
  };
  await Promise.all(Array.from({ length: run.atOnce ?? AT_ONCE }, worker));
  await pause(20);
  for (const upstream of upstreams) {
    upstream.sightings.clear();
    for (const violation of upstream.violations.splice(0))
      tally.failures.push({
        case: -1,
        exchange: 0,
        faults: [`an upstream was sent ${violation}`],
        sent: [],
        after: '',
        request: '',
        got: '',
      });
  }
  return tally;
};
