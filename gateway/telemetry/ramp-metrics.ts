import { RAMP_STATES, type RampState } from '@banyan/contracts/vocabulary.ts';
import { Counter, Gauge, type Registry } from 'prom-client';

export type RampSources = {
  /** Where ramps stood at the last look. */
  readonly states: () => readonly { readonly context: string; readonly state: RampState }[];
  readonly leading: () => boolean;
};

export type RampMetrics = {
  decided(context: string, outcome: 'advance' | 'hold' | 'rollback' | 'done'): void;
  hooked(on: 'before' | 'after' | 'rollback', result: 'ok' | 'refused' | 'failed'): void;
};

/** `banyan_ramp_*` of a process that may lead. @param label bounds the names of contexts */
export const registerRamp = (registry: Registry, sources: RampSources, label: (context: string) => string): RampMetrics => {
  const registers = [registry];
  new Gauge({
    name: 'banyan_ramp_state',
    help: '1 for the state that the ramp of a context is in.',
    labelNames: ['context', 'state'] as const,
    registers,
    collect() {
      this.reset();
      for (const { context, state } of sources.states())
        for (const each of RAMP_STATES) if (each !== 'idle') this.set({ context: label(context), state: each }, each === state ? 1 : 0);
    },
  });
  new Gauge({
    name: 'banyan_ramp_leader',
    help: '1 where this gateway decides about ramps; at most one of a store does.',
    registers,
    collect() {
      this.set(sources.leading() ? 1 : 0);
    },
  });
  const decisions = new Counter({
    name: 'banyan_ramp_decisions_total',
    help: 'Decisions: advance, done, rollback, and hold where its reasons changed.',
    labelNames: ['context', 'outcome'] as const,
    registers,
  });
  const hooks = new Counter({
    name: 'banyan_ramp_webhooks_total',
    help: 'Calls of webhooks by event and result.',
    labelNames: ['on', 'result'] as const,
    registers,
  });
  return {
    decided: (context, outcome) => decisions.inc({ context: label(context), outcome }),
    hooked: (on, result) => hooks.inc({ on, result }),
  };
};
