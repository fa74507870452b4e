import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import { askLater, decideRow, type LedgerRow, type LedgerSettle, rowOf, settleRows } from './ledger.ts';
import { fillTemplate } from './path-template.ts';
import { readFinding } from './resolve.ts';
import { dueAfter, type RouteWrites } from './route-writes.ts';
import type { Seal } from './seal.ts';
import { decodeRequest, encodeResponse, type StoredResponse } from './stored.ts';
import type { Log } from './write.ts';

/** Asks the upstream, with the configured credentials only; never a client's. Throws when there is no answer. */
export type Ask = (context: string, upstream: Upstream, path: string) => Promise<{ readonly status: number; readonly body: Buffer }>;

export type ReconcilerDeps = {
  readonly db: Knex;
  readonly seal: Seal;
  readonly ask: Ask;
  /** The configuration of a ledgered route now; undefined when it is gone. */
  readonly routeOf: (context: string, route: string) => RouteWrites | undefined;
  readonly log: Log;
  /** Looks at one row before it is parked. Default 12. */
  readonly maxAttempts?: number;
  /** Pause after the first look, doubled up to `maxDelayMs`, with jitter. Defaults 250 and 30,000. */
  readonly firstDelayMs?: number;
  readonly maxDelayMs?: number;
};

/** Settles one claimed row of state unknown by asking: never by sending again. What cannot be decided waits for a person. */
export const createReconciler = (deps: ReconcilerDeps): ((row: LedgerRow) => Promise<void>) => {
  const { db, seal, log } = deps;
  const settle = async (row: LedgerRow, rest: Omit<LedgerSettle, 'id' | 'fence' | 'from_state'>): Promise<void> => {
    await settleRows(db, [{ id: row.id, fence: row.fence, from_state: 'unknown', ...rest }]);
  };
  const park = (row: LedgerRow, why: string) => {
    log.error({ id: row.id, context: row.context, error: why }, 'a command waits for a person: nobody knows whether it was applied');
    return settle(row, { event: 'exhausted', settled_by: null, error: why });
  };

  const later = async (row: LedgerRow, why: string): Promise<void> => {
    const past = Date.now() > row.settle_after.getTime();
    if (past && row.attempts >= (deps.maxAttempts ?? 12)) return park(row, why);
    const ceiling = Math.min(deps.maxDelayMs ?? 30_000, (deps.firstDelayMs ?? 250) * 2 ** Math.min(row.attempts, 20));
    await askLater(db, row.id, row.fence, Math.round(ceiling * (0.5 + Math.random() / 2)), why);
  };

  const found = async (row: LedgerRow, writes: RouteWrites, body: string | null, by: 'resolve' | 'attested'): Promise<void> => {
    const response: StoredResponse = {
      status: (by === 'attested' ? row.attested?.status : writes.resolve?.status) ?? 200,
      headers: [['content-type', 'application/json']],
      body: body === null ? null : Buffer.from(body),
    };
    const due =
      row.sealed_request === null
        ? { facts: null, park: 'unbuildable: the request is not kept any more', undo: null }
        : dueAfter(
            { ...writes, publisher: row.publisher },
            row.upstream,
            decodeRequest(seal.open(row.id, 'request', row.sealed_request)),
            response,
            row.idempotency_key,
          );
    // without a body there is nothing to replay: a repeat is told that the answer is lost
    const kept = body !== null && row.scope !== '';
    await settle(row, {
      event: 'found',
      settled_by: by,
      ...due,
      status: kept ? response.status : null,
      sealed_response: kept ? seal.seal(row.id, 'response', encodeResponse(response, writes.answerLimitBytes)).toString('base64') : null,
    });
  };

  /** Its transaction has committed; where the route says how, the answer is asked for. */
  const attested = async (row: LedgerRow, writes: RouteWrites | undefined): Promise<void> => {
    if (!writes) {
      if (row.attested?.facts == null)
        return park(row, `it was done, but the configuration has no ledgered route ${row.route} any more to say its event`);
      return settle(row, { event: 'found', settled_by: 'attested', facts: row.attested.facts });
    }
    const path =
      writes.resolve === null || writes.resolve.body === null
        ? null
        : fillTemplate(writes.resolve.get, { key: row.idempotency_key, route: row.route, target: row.target });
    if (path === null) return found(row, writes, null, 'attested');
    const answer = await deps.ask(row.context, row.upstream, path);
    const finding = readFinding(writes.resolve!, answer.status, answer.body.toString());
    // its facts may need what only the answer tells
    if (finding.kind !== 'found')
      return later(row, finding.kind === 'unclear' ? finding.why : 'it was done, but is not there to be asked for');
    return found(row, writes, finding.body, 'attested');
  };

  const look = async (row: LedgerRow): Promise<void> => {
    const writes = deps.routeOf(row.context, row.route);
    if (row.attested !== null) return attested(row, writes);
    if (!writes) return later(row, `the configuration has no ledgered route ${row.route} any more`);
    if (writes.idempotency === 'database' && row.upstream === 'legacy') {
      // no need to ask or to wait: an attempt that has not told the ledger by now can no longer commit
      const said = await decideRow(db, row.id, row.fence);
      if (said === 'busy') return later(row, 'its transaction is open');
      return said === 'attested' ? attested({ ...row, attested: (await rowOf(db, row.id))?.attested ?? null }, writes) : undefined;
    }
    if (!writes.resolve) {
      // only a captured change can still tell
      if (Date.now() > row.settle_after.getTime()) return park(row, 'no resolve is configured, and no captured change tells');
      return later(row, 'waits for a captured change');
    }
    const path = fillTemplate(writes.resolve.get, { key: row.idempotency_key, route: row.route, target: row.target });
    if (path === null) return park(row, `resolve.get names a place that ${row.route} does not have`);
    const answer = await deps.ask(row.context, row.upstream, path);
    const finding = readFinding(writes.resolve, answer.status, answer.body.toString());
    if (finding.kind === 'found') return found(row, writes, finding.body, 'resolve');
    if (finding.kind === 'unclear') return later(row, finding.why);
    // it may still be on its way: "not there" counts only after a while
    if (Date.now() > row.settle_after.getTime())
      return settle(row, { event: 'absent', settled_by: 'absent', error: 'the upstream does not have it' });
    await later(row, 'not there yet');
  };

  return async (row) => {
    try {
      await look(row);
    } catch (error) {
      const why = error instanceof Error ? error.message.slice(0, 300) : String(error);
      await later(row, why).catch((failure: unknown) => log.warn({ id: row.id, error: String(failure) }, 'a row could not be put back'));
    }
  };
};
