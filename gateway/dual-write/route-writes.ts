import { AppError } from '@banyan/contracts/errors.ts';
import { checkEventData } from '@banyan/contracts/events/index.ts';
import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import { answeredAggregate, type BuiltEvent, buildEvents, type CompiledEvent, eventsFor } from '../core/event-mapping.ts';
import type { Publisher, Undo } from './ledger.ts';
import { fillTemplate } from './path-template.ts';
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
  /** Takes back what legacy did, when its event cannot be built; null = such a command waits for a person. */
  readonly compensate: { readonly to: 'legacy' | 'adapter'; readonly method: string; readonly path: string | null } | null;
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

/** What is due after legacy applied a command: facts, nothing (null), or a reason to wait for a person, or to take it back (`undo`). */
export type Due = { readonly facts: readonly BuiltEvent[] | null; readonly park: string | null; readonly undo: Undo | null };

/** May a command of this route be sent again under its key? `database`: whichever attempt tells the ledger first wins, the others roll back. */
export const mayResend = (writes: Pick<RouteWrites, 'idempotency'>, upstream: Upstream): boolean =>
  writes.idempotency === 'key' || writes.idempotency === 'natural' || (writes.idempotency === 'database' && upstream === 'legacy');

/** The request that takes a command back; null = none is configured, or a place of its path has no value. */
export const undoOf = (
  writes: Pick<RouteWrites, 'compensate' | 'route' | 'events' | 'idempotency'>,
  upstream: Upstream,
  request: StoredRequest,
  response: StoredResponse | null,
  key: string,
): Undo | null => {
  const { compensate, route } = writes;
  if (compensate === null || upstream !== 'legacy') return null;
  const { to, method } = compensate;
  // the adapter remembers the keys it has seen
  const repeat = to === 'adapter' || mayResend(writes, upstream);
  const aggregate = answeredAggregate(writes.events, factsOf(request, response));
  if (compensate.path === null) return aggregate === null ? null : { to, method, path: aggregate, repeat };
  const path = fillTemplate(compensate.path, { key, route, target: request.target, aggregate });
  return path === null ? null : { to, method, path, repeat };
};

const NOTHING_DUE: Due = { facts: null, park: null, undo: null };

/** @param upstream who executed it; what extracted executed, its own outbox publishes. @param key of the command */
export const dueAfter = (
  writes: Pick<RouteWrites, 'events' | 'publisher' | 'compensate' | 'route' | 'idempotency'>,
  upstream: Upstream,
  request: StoredRequest,
  response: StoredResponse,
  key: string,
): Due => {
  if (upstream === 'extracted' || writes.publisher === 'capture') return NOTHING_DUE;
  const built = buildEvents(writes.events, factsOf(request, response), checkEventData);
  switch (built.kind) {
    case 'built':
      return { ...NOTHING_DUE, facts: built.events };
    case 'none':
      return NOTHING_DUE;
    case 'unbuildable':
      return { facts: null, park: `unbuildable: ${built.why}`, undo: undoOf(writes, upstream, request, response, key) };
    case 'unmapped': {
      // a redirect to the login page is no success; a route that redirects after a success says so in its `when`
      const success =
        response.status < 300 || eventsFor(writes.events, request.method, request.target).some((event) => event.mode === 'tentative');
      // not taken back by itself: that the mapping forgot an answer is no fault of the command
      return { ...NOTHING_DUE, park: success ? `unmapped-answer: ${built.why}` : null };
    }
  }
};
