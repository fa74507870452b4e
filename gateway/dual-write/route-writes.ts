import { AppError } from '@banyan/contracts/errors.ts';
import { checkEventData } from '@banyan/contracts/events/index.ts';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import { type BuiltEvent, buildEvents, type CompiledEvent, eventsFor } from '../core/event-mapping.ts';
import type { Publisher } from './ledger.ts';
import { factsOf, type StoredRequest, type StoredResponse } from './stored.ts';

/** What the configuration says of a ledgered route. Times in ms. */
export type RouteWrites = {
  readonly context: string;
  /** METHOD and pattern, `POST /api/orders/:id/cancel`: names the route in the ledger. */
  readonly route: string;
  /** The events of the whole context, compiled. */
  readonly events: readonly CompiledEvent[];
  readonly publisher: Publisher;
  /** `key` and `natural` allow a re-send when the client repeats its key. */
  readonly idempotency: 'key' | 'natural' | 'database' | 'none';
  readonly resolve: { readonly get: string; readonly applied: string; readonly body: string | null; readonly status: number } | null;
  readonly responseTimeoutMs: number;
  /** Before "not there" counts as not applied. */
  readonly settleMs: number;
  /** How long a repeat waits for the one in flight, and a command for its aggregate or a freeze. */
  readonly deadlineMs: number;
  readonly answerLimitBytes: number;
};

/** A command as the client sent it. Header names are lower-case. */
export type Command = StoredRequest & {
  readonly writes: RouteWrites;
  /** The client's Idempotency-Key; null = none, one is made. */
  readonly key: string | null;
  /** From `Seal.scopeOf`; '' = nobody can be told apart, no stored answer is replayed. */
  readonly scope: string;
  readonly upstream: Upstream;
  readonly epoch: number;
  readonly traceparent?: string | undefined;
  /** `client` is the keyed hash under which the pin is looked up. */
  readonly pin?: { readonly client: string; readonly ms: number } | undefined;
};

/**
 * Faults that only show when everything of a route stands together; to be called at start.
 * @throws AppError `bad-request`
 */
export const checkRouteWrites = (writes: RouteWrites): void => {
  const method = writes.route.split(' ', 1)[0]!;
  const tentative = writes.events.find((event) => event.mode === 'tentative' && event.method === method);
  if (tentative && writes.publisher === 'capture')
    throw new AppError(
      'bad-request',
      `${writes.context}: ${tentative.type} has mode tentative, which needs publisher ledger: a captured change carries no phase`,
    );
};

/** What is due after legacy applied a command: facts, nothing (null), or a reason to wait for a person. */
export type Due = { readonly facts: readonly BuiltEvent[] | null; readonly park: string | null };

/** @param upstream who executed it; what extracted executed, its own outbox publishes. */
export const dueAfter = (
  writes: Pick<RouteWrites, 'events' | 'publisher'>,
  upstream: 'legacy' | 'extracted',
  request: StoredRequest,
  response: StoredResponse,
): Due => {
  if (upstream === 'extracted' || writes.publisher === 'capture') return { facts: null, park: null };
  const built = buildEvents(writes.events, factsOf(request, response), checkEventData);
  switch (built.kind) {
    case 'built':
      return { facts: built.events, park: null };
    case 'none':
      return { facts: null, park: null };
    case 'unbuildable':
      return { facts: null, park: `unbuildable: ${built.why}` };
    case 'unmapped': {
      // a redirect to the login page is no success; a route that redirects after a success says so in its `when`
      const success =
        response.status < 300 || eventsFor(writes.events, request.method, request.target).some((event) => event.mode === 'tentative');
      return { facts: null, park: success ? `unmapped-answer: ${built.why}` : null };
    }
  }
};
