import { createHmac } from 'node:crypto';
import { HEADERS, type Upstream as Side } from '@banyan/contracts/vocabulary.ts';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { ParityHoursQuery, ParityPort } from './admin/ports.ts';
import { fillTemplate } from './dual-write/path-template.ts';
import { readFinding } from './dual-write/resolve.ts';
import { type LiveParts, queryRoutesOf } from './live.ts';
import { createAliasBook } from './parity/aliases/book.ts';
import type { AliasStore } from './parity/aliases/store.ts';
import { createTwins } from './parity/aliases/twins.ts';
import { createDryRuns, type DryRunSettings } from './parity/dry-run.ts';
import { createEvidence, type Evidence, type EvidenceStore } from './parity/evidence.ts';
import { createJudgeThread, type JudgeThread } from './parity/judge-thread.ts';
import { redactedMembers } from './parity/redact.ts';
import { createRouteNames } from './parity/route-names.ts';
import { createShadow } from './parity/shadow.ts';
import type { CopyAnswer, ShadowCopy } from './parity/shadow-ask.ts';
import type { ShadowPort } from './ports.ts';
import { askUpstream } from './proxy/ask.ts';
import { Call } from './proxy/call.ts';
import { collect } from './proxy/collect.ts';
import { headerOf, pairsOf } from './proxy/headers.ts';
import type { Metrics } from './telemetry/metrics.ts';

/** What a service says of its dry runs. */
const declarationSchema = z.object({ dryRun: z.literal(true), ids: z.enum(['stable', 'transient']) });

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
    retention: () => new Map(Object.entries(deps.live().config.contexts).map(([name, { parity }]) => [name, parity.retention])),
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
  parityHours: async ({ context, ...query }) =>
    live().contexts.has(context)
      ? { items: await evidence.parityHours({ context, ...hourWindow(query, new Date()) }), next: null }
      : undefined,
  parityLatency: async (context) =>
    live().contexts.has(context) ? { items: await evidence.parityLatency(context), next: null } : undefined,
  pairs: evidence.pairs,
  pair: evidence.pair,
});

const HOUR_MS = 3_600_000;
const hourWindow = ({ hours, route }: Omit<ParityHoursQuery, 'context'>, now: Date) => {
  const to = (Math.floor(now.getTime() / HOUR_MS) + 1) * HOUR_MS;
  return { from: new Date(to - hours * HOUR_MS), to: new Date(to), route };
};

/** Judges large answers; one for each process. */
export const createJudges = (log: Logger): JudgeThread =>
  createJudgeThread({ onTrouble: (why) => log.warn({ reason: why }, 'two large answers could not be compared') });

export type ShadowingDeps = {
  readonly evidence: Evidence;
  readonly judges: JudgeThread;
  /** null = aliases stay in this process. */
  readonly aliases: AliasStore | null;
  readonly live: () => LiveParts;
  readonly metrics: Metrics;
  readonly log: Logger;
};

export type Shadowing = ShadowPort & {
  start(): void;
  stop(): Promise<void>;
};

/** Joins the shadow path to the upstreams: copies leave on sockets of their own, and never share a client's. */
export const createShadowing = (deps: ShadowingDeps): Shadowing => {
  const { live, metrics, evidence, log } = deps;
  const send = async (side: Side, context: string, copy: ShadowCopy): Promise<CopyAnswer> => {
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
    const extra = [
      ...(token === null || strip === null ? [] : [strip, token]),
      ...(copy.key === undefined || copy.key === null ? [] : [HEADERS.idempotencyKey, copy.key]),
    ];
    const sentAt = performance.now();
    const answer = await upstream.forward(call, {
      ...(copy.body === undefined ? {} : { body: copy.body }),
      ...(extra.length === 0 ? {} : { headers: extra }),
    });
    const headMs = performance.now() - sentAt;
    const { body, digest, complete } = await collect(answer, copy.bodyLimitBytes);
    const got = { status: answer.status, headers: pairsOf(answer.rawHeaders), body, complete, headMs };
    if (digest !== null) return complete ? { ...got, digest } : { ...got, digest, why: 'truncated' };
    return complete ? got : { ...got, why: 'truncated' };
  };

  const settings = (context: string): DryRunSettings | undefined => {
    const found = live().config.contexts[context];
    return found?.extracted ? { parity: found.parity, shadow: found.shadow } : undefined;
  };
  const now = (): number => Date.now();
  const book = createAliasBook({
    store: deps.aliases,
    wanted: (context) => live().config.contexts[context]?.parity.aliases === true,
    anyWanted: () => Object.values(live().config.contexts).some(({ parity }) => parity.aliases),
    redacted: () => redactedMembers(live().config.redact),
    onStore: (failing, error) =>
      failing
        ? log.warn({ err: error }, 'aliases of ids cannot be exchanged with the store')
        : log.info('aliases of ids are exchanged with the store again'),
  });
  const names = createRouteNames({
    store: evidence,
    labels: (context) => {
      const found = live().config.contexts[context];
      return found ? queryRoutesOf(found) : [];
    },
    onStore: (failing, error) =>
      failing
        ? log.warn({ err: error }, 'templates of routes cannot be exchanged with the store')
        : log.info('templates of routes are exchanged with the store again'),
  });
  const twins = createTwins({ book, settings, send, now, onEnd: ({ context }, outcome) => metrics.aliases(context, outcome) });
  const dryRuns = createDryRuns({
    settings,
    async declaration(context, signal) {
      const upstream = live().contexts.get(context)?.extracted?.upstream;
      if (!upstream || signal.aborted) return null;
      const { status, body } = await askUpstream(upstream, { path: '/_banyan/dry-run', limitBytes: 4_096, timeoutMs: 5_000 });
      const said = status === 200 ? declarationSchema.safeParse(JSON.parse(body.toString())) : null;
      return said?.success ? { ids: said.data.ids } : null;
    },
    send,
    evidence,
    book,
    now,
    random: Math.random,
    onIgnored: (context, requestId) =>
      log.error(
        { context, requestId },
        'the service answered a dry run without the mark banyan-dry-run: it may have done the command. It gets no more of them from this process',
      ),
    onJudged: metrics.dryRun,
  });
  const shadow = createShadow({
    settings,
    send,
    judgeLarge: deps.judges.judge,
    evidence,
    aliases: book.of,
    now,
    random: Math.random,
    onExpiredRules: (expired) => {
      for (const { at, because, until } of expired)
        log.warn({ at, because, until }, 'an ignore rule has ended and excuses nothing any more');
    },
    onDropped: (context, why) => metrics.shadowDropped(context, why),
    onLatency: ({ context, route }, side, asked, ms) => evidence.latency(context, route, side, asked, ms),
    onJudged: (pair) => metrics.parityCompared(pair.context, pair.verdict.kind),
  });

  return {
    offer(offer) {
      try {
        shadow.offer({ ...offer, route: names.name(offer.context, offer.route, offer.target) });
      } catch (error) {
        log.error({ err: error }, 'a query could not be offered to the shadow');
      }
    },
    wants: (context) => (live().config.contexts[context]?.parity.sample ?? 0) > 0,
    dryRun: dryRuns.begin,
    makesDryRuns: (context) => (settings(context)?.parity.dryRun ?? 0) > 0,
    created({ route, key, resolve, ...made }) {
      if (book.of(made.context) === undefined) return;
      const question = fillTemplate(resolve.get, { key, route, target: made.target });
      if (question === null) return;
      twins.offer({
        ...made,
        question,
        read(status, text) {
          const finding = readFinding({ ...resolve, body: resolve.body ?? '$' }, status, text);
          return finding.kind === 'found' ? finding.body : null;
        },
      });
    },
    start() {
      book.start();
      names.start();
    },
    async stop() {
      // the thread too: it may be busy with a pair that the shadow waits for
      await Promise.all([deps.judges.stop(), shadow.stop(), twins.stop(), dryRuns.stop()]);
      await Promise.all([book.stop(), names.stop()]);
    },
  };
};
