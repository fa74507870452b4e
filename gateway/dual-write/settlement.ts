import type { LedgerSettle } from './ledger.ts';
import { type Command, dueAfter } from './route-writes.ts';
import type { Seal } from './seal.ts';
import { encodeResponse, jsonValue, type StoredRequest, type StoredResponse } from './stored.ts';

/** What came of a command that was sent. `body` of the answer null = larger than could be kept. */
export type Outcome =
  | { readonly kind: 'answered'; readonly response: StoredResponse }
  /** Not one byte went out. */
  | { readonly kind: 'not-sent'; readonly why: string }
  /** Time-out, reset, or anything else after the first byte. */
  | { readonly kind: 'lost'; readonly why: string };

/** An extracted service answers so when `append_fact` refused, that is before any effect (docs/interfaces.md). */
const refusedBeforeEffect = (command: Command, response: StoredResponse): boolean => {
  if (command.upstream !== 'extracted' || response.status !== 503 || response.body === null) return false;
  const problem = jsonValue(response.body.toString());
  return typeof problem === 'object' && problem !== null && (problem as { code?: unknown }).code === 'context-unavailable';
};

/** The terminal commit of a command, from its outcome. 2xx and 3xx are ok, 4xx refused, 5xx unknown. */
export const settlement = (input: {
  id: string;
  fence: string;
  /** Of the command, its own or one that was made. */
  key: string;
  command: Command;
  request: StoredRequest;
  outcome: Outcome;
  seal: Seal;
}): LedgerSettle => {
  const { id, fence, key, command, request, outcome, seal } = input;
  const row = { id, fence, from_state: 'sent' as const };
  if (outcome.kind === 'not-sent') return { ...row, event: 'not-sent', settled_by: 'not-sent', error: outcome.why.slice(0, 500) };
  if (outcome.kind === 'lost') return { ...row, event: 'lost', settled_by: null, error: outcome.why.slice(0, 500) };
  const { response } = outcome;
  if (refusedBeforeEffect(command, response))
    return { ...row, event: 'not-sent', settled_by: 'not-sent', error: 'the service does not own the context' };
  if (response.status >= 500 || response.status < 200)
    return { ...row, event: 'lost', settled_by: null, error: `answered ${response.status}` };
  const ok = response.status < 400;
  const due = ok ? dueAfter(command.writes, command.upstream, request, response, key) : null;
  // an answer that may never be replayed is kept only where a person will need it
  const keep = command.scope !== '' || (due !== null && due.park !== null);
  return {
    ...row,
    event: ok ? 'ok' : 'refused',
    settled_by: 'answer',
    ...due,
    attests: command.writes.idempotency === 'database' && command.upstream === 'legacy',
    status: response.status,
    sealed_response: keep ? seal.seal(id, 'response', encodeResponse(response, command.writes.answerLimitBytes)).toString('base64') : null,
    pin: ok && command.pin ? { client: command.pin.client, side: command.upstream, ms: command.pin.ms } : null,
  };
};
