import { BREAKER_STATES, type BreakerState, HOST_STATES, type HostState, type Stage, type Upstream } from '@banyan/contracts/vocabulary.ts';
import { Counter, Gauge, Registry } from 'prom-client';
import { type RampMetrics, type RampSources, registerRamp } from './ramp-metrics.ts';
import { createRequestMetrics, NONE, OTHER, type RequestSample } from './request-metrics.ts';

/** What is read when somebody scrapes. Each must be cheap; a failing one leaves its gauges out. */
export type MetricSources = {
  readonly flags: () => readonly {
    readonly name: string;
    readonly stage: Stage;
    readonly canaryShareBp: number;
    readonly killed: boolean;
  }[];
  readonly breaker: (context: string) => { readonly state: BreakerState };
  readonly upstreams: () => readonly {
    /** null = legacy. */
    readonly context: string | null;
    readonly upstream: Upstream;
    readonly hosts: readonly { readonly state: HostState }[];
  }[];
  readonly tunnels: () => Readonly<Record<Upstream, number>>;
  /** null = nothing is published from here. */
  readonly backlog: () => Promise<{
    readonly depth: number;
    readonly oldestAgeMs: number;
    readonly etaMs?: number | null | undefined;
  } | null>;
};

/** More values than this of one label become `other`: a file with 10,000 routes must not make 10,000 histograms. */
export const MAX_LABEL_VALUES = 500;

/** Lets the first `most` values through and folds the rest. */
export const bounded = (most: number): ((value: string) => string) => {
  const seen = new Set<string>();
  return (value) => {
    if (seen.has(value)) return value;
    if (seen.size >= most) return OTHER;
    seen.add(value);
    return value;
  };
};

/** Share of a context's queries that extracted answers, 0..1. */
export const rolloutOf = (flag: { readonly stage: Stage; readonly canaryShareBp: number; readonly killed: boolean }): number => {
  if (flag.stage === 'retired') return 1;
  if (flag.killed) return 0;
  if (flag.stage === 'cutover') return 1;
  return flag.stage === 'canary' ? flag.canaryShareBp / 10_000 : 0;
};

export type Metrics = {
  readonly registry: Registry;
  request(sample: RequestSample): void;
  parityCompared(context: string, result: 'match' | 'noise' | 'mismatch' | 'incomparable'): void;
  /** Dry runs of commands by verdict. */
  dryRun(context: string, result: 'match' | 'noise' | 'mismatch' | 'incomparable'): void;
  /** @param reason why a copy was not made or not compared; a fixed word of the code */
  shadowDropped(context: string, reason: string): void;
  /** Things that a command made, by whether the other side's name of them was learned. @param outcome a fixed word of the code */
  aliases(context: string, outcome: string): void;
  /** @param outcome `published` or `failed` */
  events(context: string, outcome: string, count?: number): void;
  /** @param outcome a fixed word of the code */
  upgrade(outcome: string): void;
  /** Questions to legacy who is logged in. @param outcome a fixed word of the code */
  identity(outcome: string): void;
  /** Questions to the OpenFeature provider. @param outcome a fixed word of the code */
  provider(outcome: string): void;
  /** Adds the gauges of a process that may lead ramps. */
  ramp(sources: RampSources): RampMetrics;
  /** @param lost samples that could not be stored, since the start */
  rampSamplesLost(lost: () => number): void;
  configLoaded(generation: number): void;
  configRefused(): void;
  journalFailed(): void;
};

/** All of `banyan_*` (base units, bounded labels). @param sources read at each scrape; absent parts have no gauges */
export const createMetrics = (deps: { version: string; nodeVersion: string; sources?: Partial<MetricSources> }): Metrics => {
  const registry = new Registry();
  const registers = [registry];
  const { flags, breaker, backlog, tunnels, upstreams } = deps.sources ?? {};
  const label = {
    context: bounded(MAX_LABEL_VALUES),
    route: bounded(MAX_LABEL_VALUES),
    reason: bounded(MAX_LABEL_VALUES),
    outcome: bounded(MAX_LABEL_VALUES),
    resource: bounded(MAX_LABEL_VALUES),
  };
  const request = createRequestMetrics(registry, label.context, label.route);
  const comparisons = new Counter({
    name: 'banyan_parity_comparisons_total',
    help: 'Compared pairs by verdict.',
    labelNames: ['context', 'result'] as const,
    registers,
  });
  const dryRuns = new Counter({
    name: 'banyan_parity_dry_runs_total',
    help: 'Dry runs of commands, compared with what legacy answered, by verdict.',
    labelNames: ['context', 'result'] as const,
    registers,
  });
  const dropped = new Counter({
    name: 'banyan_parity_shadow_dropped_total',
    help: 'Copies that were not made or not compared.',
    labelNames: ['context', 'reason'] as const,
    registers,
  });
  const aliases = new Counter({
    name: 'banyan_parity_aliases_total',
    help: 'Answers to commands whose ids were looked up at the other side, by outcome (learned, same, absent, …).',
    labelNames: ['context', 'outcome'] as const,
    registers,
  });
  const events = new Counter({
    name: 'banyan_events_total',
    help: 'Facts that the relay handled, by outcome.',
    labelNames: ['context', 'outcome'] as const,
    registers,
  });
  const identity = new Counter({
    name: 'banyan_identity_total',
    help: 'Requests whose client legacy was to name, by outcome (known, nobody, failed, cached).',
    labelNames: ['outcome'] as const,
    registers,
  });
  const provider = new Counter({
    name: 'banyan_provider_evaluations_total',
    help: 'Questions to the OpenFeature provider, by outcome (answered, failed, late).',
    labelNames: ['outcome'] as const,
    registers,
  });
  const upgrades = new Counter({
    name: 'banyan_upgrades_total',
    help: 'Connection upgrades by what became of them: open, refused by the upstream, failed, rejected by the gateway, left.',
    labelNames: ['outcome'] as const,
    registers,
  });
  if (tunnels)
    new Gauge({
      name: 'banyan_tunnels',
      help: 'Open tunnels: WebSockets and other upgraded connections.',
      labelNames: ['upstream'] as const,
      registers,
      collect() {
        for (const [upstream, open] of Object.entries(tunnels())) this.set({ upstream }, open);
      },
    });
  if (upstreams)
    new Gauge({
      name: 'banyan_upstream_hosts',
      help: 'Hosts of an upstream by state: healthy, unhealthy (active checks), ejected (for how they answered).',
      labelNames: ['context', 'upstream', 'state'] as const,
      registers,
      collect() {
        this.reset();
        for (const { context, upstream, hosts } of upstreams())
          for (const state of HOST_STATES)
            this.set(
              { context: context === null ? NONE : label.context(context), upstream, state },
              hosts.filter((host) => host.state === state).length,
            );
      },
    });
  const generation = new Gauge({
    name: 'banyan_config_generation',
    help: 'Rises with every configuration that was taken.',
    aggregator: 'first',
    registers,
  });
  const reloaded = new Gauge({
    name: 'banyan_config_last_reload_successful',
    help: '1 when the last configuration was taken, 0 when it was refused.',
    aggregator: 'first',
    registers,
  });
  new Gauge({
    name: 'banyan_resident_memory_bytes',
    help: 'Memory that the processes of the gateway take.',
    registers,
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  new Gauge({
    name: 'banyan_active_resources',
    help: 'What keeps the processes busy or waiting, by kind: sockets, timers, servers, …',
    labelNames: ['type'] as const,
    registers,
    collect() {
      this.reset();
      for (const type of process.getActiveResourcesInfo()) this.inc({ type: label.resource(type) });
    },
  });
  const failures = new Counter({ name: 'banyan_journal_failures_total', help: 'Requests whose note could not be taken.', registers });
  new Gauge({
    name: 'banyan_build_info',
    help: 'Always 1.',
    labelNames: ['version', 'node'] as const,
    aggregator: 'first',
    registers,
  }).set({ version: deps.version, node: deps.nodeVersion }, 1);
  if (flags) {
    new Gauge({
      name: 'banyan_flag_rollout_ratio',
      help: 'Share of queries that extracted answers.',
      labelNames: ['context'] as const,
      registers,
      collect() {
        this.reset();
        for (const flag of flags()) this.set({ context: label.context(flag.name) }, rolloutOf(flag));
      },
    });
    if (breaker)
      new Gauge({
        name: 'banyan_circuit_state',
        help: '1 for the state that the circuit is in.',
        labelNames: ['context', 'state'] as const,
        registers,
        collect() {
          this.reset();
          for (const flag of flags()) {
            const { state } = breaker(flag.name);
            for (const each of BREAKER_STATES) this.set({ context: label.context(flag.name), state: each }, each === state ? 1 : 0);
          }
        },
      });
  }
  if (backlog) {
    let asked: Promise<Awaited<ReturnType<typeof backlog>>> | null = null;
    /** One question for both gauges; a store that is away leaves them out instead of failing the scrape. */
    const ask = (): Promise<Awaited<ReturnType<typeof backlog>>> => {
      asked ??= backlog()
        .catch(() => null)
        .finally(() => {
          asked = null;
        });
      return asked;
    };
    new Gauge({
      name: 'banyan_outbox_depth',
      help: 'Facts that wait for the stream.',
      registers,
      async collect() {
        const now = await ask();
        if (now) this.set(now.depth);
        else this.remove();
      },
    });
    new Gauge({
      name: 'banyan_outbox_oldest_age_seconds',
      help: 'How long the oldest of them has waited.',
      registers,
      async collect() {
        const now = await ask();
        if (now) this.set(now.oldestAgeMs / 1000);
        else this.remove();
      },
    });
    new Gauge({
      name: 'banyan_outbox_eta_seconds',
      help: 'Until nothing waits if the backlog goes on falling as it does; absent while it does not fall.',
      registers,
      async collect() {
        const eta = (await ask())?.etaMs;
        if (typeof eta === 'number') this.set(eta / 1000);
        else this.remove();
      },
    });
  }

  return {
    registry,
    request,
    parityCompared: (context, result) => comparisons.inc({ context: label.context(context), result }),
    dryRun: (context, result) => dryRuns.inc({ context: label.context(context), result }),
    shadowDropped: (context, reason) => dropped.inc({ context: label.context(context), reason: label.reason(reason) }),
    aliases: (context, outcome) => aliases.inc({ context: label.context(context), outcome: label.outcome(outcome) }),
    events: (context, outcome, count = 1) => events.inc({ context: label.context(context), outcome: label.outcome(outcome) }, count),
    upgrade: (outcome) => upgrades.inc({ outcome }),
    identity: (outcome) => identity.inc({ outcome }),
    provider: (outcome) => provider.inc({ outcome }),
    ramp: (sources) => registerRamp(registry, sources, label.context),
    rampSamplesLost(lost) {
      let told = 0;
      new Counter({
        name: 'banyan_ramp_samples_lost_total',
        help: 'Answers of canaries that could not be counted for the ramp: the store was away.',
        registers,
        collect() {
          this.inc(lost() - told);
          told = lost();
        },
      });
    },
    configLoaded(number) {
      generation.set(number);
      reloaded.set(1);
    },
    configRefused: () => reloaded.set(0),
    journalFailed: () => failures.inc(),
  };
};
