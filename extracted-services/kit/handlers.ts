import type { Envelope } from '@banyan/contracts/envelope.ts';
import type { Knex } from 'knex';

/** What a handler does with one fact, in the transaction that also moves the checkpoint. May run again after a roll-back, so nothing but `trx` may change. */
export type Apply = (trx: Knex.Transaction, envelope: Envelope) => Promise<void>;

/** The same for several facts at once, in the order of the stream: what thousands of facts per second need is one statement for many of them. */
export type ApplyAll = (trx: Knex.Transaction, envelopes: readonly Envelope[]) => Promise<void>;

/** `project` writes its service's own tables only; `react` does anything else: a mail, a payment, a saga, a command. */
export type Handler = {
  readonly kind: 'project' | 'react';
  readonly types: readonly string[];
  readonly apply: Apply;
  /** Present when the handler takes facts in batches. */
  readonly applyAll?: ApplyAll;
};

type Spec = { readonly types: readonly string[] } & ({ readonly apply: Apply } | { readonly applyAll: ApplyAll });

const made = (kind: Handler['kind'], spec: Spec): Handler =>
  'applyAll' in spec
    ? { kind, types: spec.types, applyAll: spec.applyAll, apply: (trx, envelope) => spec.applyAll(trx, [envelope]) }
    : { kind, types: spec.types, apply: spec.apply };

/**
 * Keeps a copy. Gets facts of both origins, also in a replay, so it must give the same state when it sees a fact again after later ones.
 * Facts of the service's own source are left out (it wrote that state already) but in a replay.
 */
export const project = (spec: Spec): Handler => made('project', spec);

/** Acts on news. Gets facts of origin `extracted` only, never in a replay: what legacy executed it has also reacted to, and what was reacted to is over. */
export const react = (spec: Spec): Handler => made('react', spec);

export type Circumstances = {
  /** `/banyan/order/extracted` for the order service; absent for one that publishes nothing. */
  readonly own?: string | undefined;
  /** Is this record behind the position from which an operator asked to read again? */
  readonly replay: boolean;
};

/** The handlers that get this fact, in their order. Tentative and compensated facts reach nobody: what they announce has not happened. Pure. */
export const handlersFor = (handlers: readonly Handler[], envelope: Envelope, { own, replay }: Circumstances): Handler[] => {
  if (envelope.phase === 'tentative' || envelope.phase === 'compensated') return [];
  const mine = envelope.source === own;
  return handlers.filter((handler) => {
    if (!handler.types.includes(envelope.type)) return false;
    return handler.kind === 'react' ? envelope.origin === 'extracted' && !replay && !mine : !mine || replay;
  });
};
