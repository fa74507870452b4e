import { createHmac } from 'node:crypto';
import type { Upstream as Side } from '@banyan/contracts/vocabulary.ts';
import type { Logger } from 'pino';
import type { ParityPort } from './admin/ports.ts';
import type { Observation } from './core/parity/observation.ts';
import type { LiveParts } from './live.ts';
import { createEvidence, type Evidence, type EvidenceStore } from './parity/evidence.ts';
import { createJudgeThread, type JudgeThread } from './parity/judge-thread.ts';
import { createShadow } from './parity/shadow.ts';
import type { ShadowCopy } from './parity/shadow-ask.ts';
import type { ShadowOffer } from './ports.ts';
import { Call } from './proxy/call.ts';
import { collect } from './proxy/collect.ts';
import { headerOf, pairsOf } from './proxy/headers.ts';
import type { Metrics } from './telemetry/metrics.ts';

/** What comparing has shown, gathered here and kept in `store`. */
export const gatherEvidence = (deps: {
  store: EvidenceStore;
  live: () => LiveParts;
  secret: string;
  judges: JudgeThread;
  log: Logger;
}): Evidence =>
  createEvidence({
    store: deps.store,
    exemplar: deps.judges.exemplar,
    redact: () => deps.live().config.redact,
    redactKey: createHmac('sha256', deps.secret).update('banyan.redact').digest(),
    onStore: (failing, error) =>
      failing
        ? deps.log.warn({ err: error }, 'parity evidence cannot be stored; it is counted as lost')
        : deps.log.info('parity evidence is stored again'),
  });

/** The evidence as the admin API shows it. */
export const parityPort = (evidence: Evidence, live: () => LiveParts): ParityPort => ({
  parityReport: async (context) =>
    live().contexts.has(context) ? await evidence.parityReport(context, live().config.contexts[context]?.ramp.gate.parity) : undefined,
  pairs: evidence.pairs,
  pair: evidence.pair,
});

/** Judges large answers; one for each process. */
export const createJudges = (log: Logger): JudgeThread =>
  createJudgeThread({ onTrouble: (why) => log.warn({ reason: why }, 'two large answers could not be compared') });

export type ShadowingDeps = {
  readonly evidence: Evidence;
  readonly judges: JudgeThread;
  readonly live: () => LiveParts;
  readonly metrics: Metrics;
  readonly log: Logger;
};

export type Shadowing = {
  offer(offer: ShadowOffer): void;
  /** Would a copy of this query be of use? Decides whether its answer is kept at all. */
  wants(context: string, operation: 'query', method: string, target: string): boolean;
  stop(): Promise<void>;
};

/** Joins the shadow path to the upstreams: copies leave on sockets of their own, and never share a client's. */
export const createShadowing = (deps: ShadowingDeps): Shadowing => {
  const { live, metrics, evidence } = deps;
  const send = async (side: Side, context: string, copy: ShadowCopy): Promise<Observation> => {
    const { shadowLegacy, shadowExtracted, whoami, strip } = live();
    const upstream = side === 'legacy' ? shadowLegacy : shadowExtracted.get(context);
    if (!upstream) return { status: 0, headers: [], body: null, complete: false, why: 'unreachable' };
    const { headers } = copy;
    const call = new Call({
      req: null,
      res: null,
      method: copy.method,
      target: copy.target,
      path: null,
      query: '',
      host: headerOf(headers, 'host') ?? '',
      headers,
      chunked: false,
      contentLength: null,
      expectContinue: false,
      clientAddress: '',
      requestId: copy.requestId,
    });
    copy.onEnd(() => call.leave());
    // the copy must be told what the request itself would be told
    const token = side === 'extracted' && whoami !== null ? await whoami.tokenFor(context, headers) : null;
    const answer = await upstream.forward(call, token === null || strip === null ? undefined : { headers: [strip, token] });
    const { body, digest, complete } = await collect(answer, copy.bodyLimitBytes);
    const got = { status: answer.status, headers: pairsOf(answer.rawHeaders), body, complete };
    if (digest !== null) return complete ? { ...got, digest } : { ...got, digest, why: 'truncated' };
    return complete ? got : { ...got, why: 'truncated' };
  };

  const shadow = createShadow({
    settings: (context) => {
      const settings = live().config.contexts[context];
      return settings?.extracted ? { parity: settings.parity, shadow: settings.shadow } : undefined;
    },
    send,
    judgeLarge: deps.judges.judge,
    evidence,
    now: () => Date.now(),
    random: Math.random,
    onExpiredRules: (expired) => {
      for (const { at, because, until } of expired)
        deps.log.warn({ at, because, until }, 'an ignore rule has ended and excuses nothing any more');
    },
    onDropped: (context, why) => metrics.shadowDropped(context, why),
    onJudged: (pair) => metrics.parityCompared(pair.context, pair.verdict.kind),
  });

  return {
    offer: shadow.offer,
    wants: (context) => (live().config.contexts[context]?.parity.sample ?? 0) > 0,
    stop: async () => {
      // the thread first: it may be busy with a pair that the shadow waits for
      await Promise.all([deps.judges.stop(), shadow.stop()]);
    },
  };
};
