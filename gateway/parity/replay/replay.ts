import { randomUUID } from 'node:crypto';
import { createAliases } from '../../core/parity/aliases.ts';
import { compareObservations } from '../../core/parity/compare.ts';
import type { Observation, Verdict } from '../../core/parity/observation.ts';
import { excuseVolatile, reproduced, volatileFields } from '../../core/parity/probe.ts';
import type { CompiledRules } from '../../core/parity/rules.ts';
import { decodePair } from '../decode.ts';
import { copyHeaders } from '../shadow-copy.ts';
import type { Recorded } from './requests.ts';
import type { Answered, Sender } from './send.ts';

/** What replaying one request has shown. */
export type Replayed = {
  readonly request: Recorded;
  readonly verdict: Verdict;
  /** Did a mismatch show again when both sides were asked once more? Never asked of commands. */
  readonly confirmed: boolean;
  readonly legacy: Answered;
  readonly extracted: Answered;
};

export type ReplayOptions = {
  readonly legacy: Sender;
  readonly extracted: Sender;
  readonly hosts: { readonly legacy: string; readonly extracted: string };
  readonly rules: CompiledRules;
  /** Added to every request, instead of recorded ones of the same name. */
  readonly headers: readonly (readonly [string, string])[];
  readonly concurrency: number;
  /** Requests per second to each side; null = as fast as they answer. */
  readonly rate: number | null;
  readonly random: () => number;
  readonly signal: AbortSignal;
  readonly onResult: (result: Replayed) => void;
};

const BODY_LIMIT_BYTES = 64 * 1024 * 1024;
const ASK_AGAIN_MS = 250;
const QUERIES = new Set(['GET', 'HEAD']);

export const isQuery = ({ method }: Pick<Recorded, 'method'>): boolean => QUERIES.has(method);

/** Headers as one side gets them: recorded ones without what belongs to a connection, conditions and ranges, its own Host, and what the operator adds. */
const headersFor = (request: Recorded, host: string, options: ReplayOptions, key: string): [string, string][] => {
  const replaced = new Set(['host', ...options.headers.map(([name]) => name.toLowerCase())]);
  const copied = copyHeaders(request.headers.flat(), 'pass');
  const headers: [string, string][] = [['Host', host]];
  for (let i = 0; i + 1 < copied.length; i += 2) {
    const name = copied[i]!.toLowerCase();
    // The mark says that nobody waits for this answer; a command is meant.
    if (!replaced.has(name) && (isQuery(request) || name !== 'banyan-shadow')) headers.push([copied[i]!, copied[i + 1]!]);
  }
  headers.push(...options.headers.map(([name, value]): [string, string] => [name, value]));
  if (isQuery(request)) return headers;
  headers.push(['Content-Length', String(request.body?.length ?? 0)]);
  if (!headers.some(([name]) => name.toLowerCase() === 'idempotency-key')) headers.push(['Idempotency-Key', key]);
  return headers;
};

const wait = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done, { once: true });
  });

const judge = async (a: Observation, b: Observation, rules: CompiledRules): Promise<Verdict> =>
  compareObservations(...(await decodePair(a, b, BODY_LIMIT_BYTES)), rules);

/**
 * Sends each request to both sides once and compares. A query that differs is asked again of both sides: where legacy differs from itself it is noise
 * while its shape stays, what does not show again is `incomparable: lagging`. Which side is asked first is drawn. Ids that both sides mint in answers to
 * commands are aliases from then on; that needs the order of the recording, so commands want `concurrency` 1. Ends early when the signal fires.
 */
export const replay = async (requests: readonly Recorded[], options: ReplayOptions): Promise<void> => {
  const { rules, random, signal } = options;
  const aliases = createAliases();
  /** The recording was made at legacy: extracted is asked about its own ids. */
  const asExtracted = (request: Recorded): Recorded => {
    const type = request.headers.find(([name]) => name.toLowerCase() === 'content-type')?.[1] ?? '';
    const body = request.body === null ? null : Buffer.from(aliases.body(request.body, type, 'extracted'));
    return { ...request, target: aliases.target(request.target, 'extracted'), body };
  };
  const both = async (request: Recorded): Promise<[legacy: Answered, extracted: Answered]> => {
    const key = randomUUID();
    const ask = (side: 'legacy' | 'extracted'): Promise<Answered> => {
      const own = side === 'legacy' ? request : asExtracted(request);
      return options[side].send(isQuery(own) ? { ...own, body: null } : own, headersFor(own, options.hosts[side], options, key));
    };
    if (random() < 0.5) {
      const legacy = ask('legacy');
      return [await legacy, await ask('extracted')];
    }
    const extracted = await ask('extracted');
    return [await ask('legacy'), extracted];
  };
  const one = async (request: Recorded): Promise<Replayed> => {
    const [legacy, extracted] = await both(request);
    if (!isQuery(request))
      aliases.learn(request.target, ...(await decodePair(legacy.observation, extracted.observation, BODY_LIMIT_BYTES)));
    const first = aliases.excuse(await judge(legacy.observation, extracted.observation, rules));
    if (first.kind !== 'mismatch' || !isQuery(request) || signal.aborted)
      return { request, verdict: first, confirmed: false, legacy, extracted };
    await wait(ASK_AGAIN_MS, signal);
    const [legacyAgain, extractedAgain] = await both(request);
    const volatile = volatileFields(await judge(legacy.observation, legacyAgain.observation, rules));
    const again = excuseVolatile(aliases.excuse(await judge(legacyAgain.observation, extractedAgain.observation, rules)), volatile);
    const verdict = reproduced(excuseVolatile(first, volatile), again);
    return { request, verdict, confirmed: verdict.kind === 'mismatch', legacy, extracted };
  };

  let next = 0;
  const startedAt = performance.now();
  const worker = async (): Promise<void> => {
    for (let at = next++; at < requests.length && !signal.aborted; at = next++) {
      if (options.rate !== null) await wait(Math.max(0, startedAt + (at * 1_000) / options.rate - performance.now()), signal);
      if (signal.aborted) return;
      const result = await one(requests[at]!);
      // What the end of the run has cut says nothing.
      if (!signal.aborted) options.onResult(result);
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.concurrency, requests.length) }, worker));
};
