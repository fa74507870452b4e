import { type RawConnection, rawConnect, statusOf } from '../harness/raw-http.ts';
import { type Case, type ClientStep, OK } from './case.ts';
import { type Heard, judge } from './judge.ts';
import { bytesOf, FENCE, type Play, type ScriptedUpstream } from './scripted-upstream.ts';
import { createSignals, type Signals } from './signals.ts';

/** What a case's client does its steps with. */
export type Client = Pick<RawConnection, 'until' | 'head' | 'message' | 'rest' | 'end' | 'reset' | 'destroy'> & {
  write(bytes: string): unknown;
};

/** A proxy under test and the upstreams behind it. */
export type Stand = {
  readonly port: number;
  /** More than one where a proxy may ask another when the first fails; each plays the whole script. */
  readonly upstreams: readonly ScriptedUpstream[];
  /** Longest wait for one step, ms: a watchdog, never a pace. */
  readonly patienceMs: number;
  /** Hold it to `want` alone, not also to what else the cited text allows. */
  readonly strict: boolean;
  /** Another client than one of raw bytes. */
  readonly dial?: (port: number) => Promise<Client>;
};

export type Outcome = { readonly passed: boolean; readonly faults: readonly string[] };

let fences = 0;

/** Plays one case and judges it. Afterwards a plain request has to get its own answer: a proxy that hangs, crashed or mixed up answers fails here. */
export const play = async (one: Case, stand: Stand): Promise<Outcome> => {
  const signals = createSignals();
  const script = one.upstream ?? [['body', OK]];
  const now: Play = { script, signals, arrived: 0, violations: [] };
  const lists = stand.upstreams.map((upstream) => upstream.begin(now));
  const steps: readonly ClientStep[] = one.client ?? [one.send ?? '', { answer: 'final', head: one.head ?? false }];
  const heard: Heard[] = [];
  const faults: string[] = [];
  const clients: Client[] = [];
  try {
    await act(steps, stand, signals, heard, clients);
  } catch (error) {
    faults.push(`client: ${(error as Error).message}`);
  }
  const last = await fence(stand);
  // Even a refusal may leave bytes behind that the next connection's owner gets to feel.
  if (last !== null) faults.push(last);
  for (const client of clients) client.destroy();
  faults.push(...now.violations);
  const all = judge(one, heard, lists, stand.strict);
  return { passed: faults.length === 0 && all.length === 0, faults: [...faults, ...all] };
};

const within = <T>(work: Promise<T>, ms: number, what: string): Promise<T> => {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms);
  return Promise.race([work, promise]).finally(() => clearTimeout(timer));
};

const act = async (steps: readonly ClientStep[], stand: Stand, signals: Signals, heard: Heard[], clients: Client[]): Promise<void> => {
  const dial = stand.dial ?? dialRaw;
  const open = async (): Promise<Client> => {
    const connection = await dial(stand.port);
    clients.push(connection);
    return connection;
  };
  let client = await open();
  for (const [index, step] of steps.entries()) {
    const patient = <T>(work: Promise<T>, what: string): Promise<T> => within(work, stand.patienceMs, `step ${index + 1}, ${what}`);
    if (step === 'reconnect') client = await open();
    else if (step === 'end') client.end();
    else if (step === 'reset') client.reset();
    else if (step === 'closed') await patient(client.rest(), 'waiting for the connection to be closed');
    else if (typeof step === 'string' || 'fill' in step) client.write(bytesOf(step));
    else if ('until' in step) await patient(client.until(step.until), `waiting for ${JSON.stringify(step.until)}`);
    else if ('await' in step) await patient(signals.wait(step.await), `waiting for the upstream's ${step.await}`);
    else if ('signal' in step) signals.give(step.signal);
    else if (step.answer === 'head') {
      const head = await patient(client.head(), 'waiting for a head');
      heard.push({ ...head, body: Buffer.alloc(0), trailers: [], complete: true });
    } else {
      for (;;) {
        const message = await patient(
          client.message({ head: 'head' in step && step.head === true }).catch(() => null),
          `waiting for ${step.answer === 'final' ? 'an' : 'an interim'} answer`,
        );
        heard.push(message ?? 'gone');
        if (message === null || step.answer === 'interim' || statusOf(message) >= 200 || statusOf(message) === 101) break;
      }
    }
  }
};

const dialRaw = async (port: number): Promise<Client> => {
  const connection = await rawConnect(port);
  connection.socket.on('error', () => {});
  return connection;
};

/** Null when a plain request on a new connection is answered with what its own upstream answer was. */
const fence = async (stand: Stand): Promise<string | null> => {
  const mark = `f${++fences}`;
  let client: RawConnection;
  try {
    client = await rawConnect(stand.port);
  } catch {
    return 'afterwards: the proxy takes no connection';
  }
  try {
    client.write(`GET ${FENCE}${mark} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n`);
    const message = await within(client.answer(), stand.patienceMs, 'a plain request afterwards');
    const body = message.body.toString('latin1');
    return statusOf(message) === 200 && body === mark
      ? null
      : `afterwards: a plain request got ${message.line} ${JSON.stringify(body.slice(0, 80))}`;
  } catch (error) {
    return `afterwards: ${(error as Error).message}`;
  } finally {
    client.destroy();
  }
};
