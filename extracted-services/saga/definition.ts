/** One step of a saga: who does it. It is undone by the same participant under the same command id. */
export type Step = {
  readonly name: string;
  /** The service that is asked, by name. */
  readonly participant: string;
  /** What it is asked to do; see its actions. */
  readonly action: string;
  /** Once it is done there is no way back: what comes after is tried until it works or a person is needed. */
  readonly pivot?: true;
  /** It was there before the saga began, so it is undone with the others even if it was never asked. */
  readonly given?: true;
};

export type Definition = {
  readonly name: string;
  readonly version: number;
  readonly steps: readonly Step[];
  /** What is not past the pivot after so long is taken back. */
  readonly deadlineMs: number;
  /** What has not ended after so long, taking back included, is parked. Time in which no orchestrator runs does not count, for neither. */
  readonly limitMs: number;
};

/** What follows when an order is placed on the extracted side. The order itself is the first step, done already: undone, it is cancelled. */
export const ORDER_SAGA: Definition = {
  name: 'order',
  version: 1,
  deadlineMs: 20_000,
  // nothing is left undecided for longer than a minute
  limitMs: 55_000,
  steps: [
    { name: 'order', participant: 'order', action: 'accept', given: true },
    { name: 'reserve', participant: 'inventory', action: 'reserve' },
    { name: 'pay', participant: 'payment', action: 'pay' },
    { name: 'ship', participant: 'shipping', action: 'ship', pivot: true },
  ],
};

export const DEFINITIONS: readonly Definition[] = [ORDER_SAGA];
