import { type Envelope, envelopeSchema } from '@banyan/contracts/envelope.ts';
import { checkEventData } from '@banyan/contracts/events/index.ts';
import type { Knex } from 'knex';
import { createBatches } from './batches.ts';
import { type Entry, keyOf } from './entries.ts';
import { isTransient, reasonOf } from './failures.ts';
import { type Handler, handlersFor } from './handlers.ts';
import { type Head, judge } from './head-rule.ts';
import { type Fact, type Hold, type Inbox, NOTHING_KNOWN, pairOf } from './inbox.ts';

/** What became of a fact. `passed` = in its turn, but no handler takes it; `foreign` = of another shard, where it comes again. */
export const OUTCOMES = ['applied', 'passed', 'duplicate', 'held', 'quarantined', 'behind', 'malformed', 'foreign'] as const;
export type Outcome = (typeof OUTCOMES)[number];
export type Counts = Record<Outcome, number>;
const zero = (): Counts => Object.fromEntries(OUTCOMES.map((outcome) => [outcome, 0])) as Counts;

/** Whole stream records of one shard, in order; `ended` with the last page of a closed shard. */
export type Page = {
  readonly hold: Hold;
  readonly entries: readonly Entry[];
  readonly ended: boolean;
  readonly replayUntil: bigint | null;
};

export type ApplyDeps = {
  readonly db: Knex;
  readonly inbox: Inbox;
  readonly handlers: readonly Handler[];
  readonly own?: string | undefined;
  /** false = commands: nothing comes before or after another, each once under its id. */
  readonly ordered?: boolean | undefined;
  /** Facts that may be held or quarantined at once. */
  readonly heldLimit: number;
};

/** A handler failed for good while the page ran as one: it runs again with each fact on its own savepoint. */
class RunSingly extends Error {}

/** The handlers of one fact. @throws AppError when `data` breaks the published schema */
const takersOf = ({ handlers, own }: ApplyDeps, { envelope }: Fact, replay: boolean): Handler[] => {
  const takers = handlersFor(handlers, envelope, { own, replay });
  if (takers.length > 0) checkEventData(envelope.type, envelope.data);
  return takers;
};

const applyIn = async (trx: Knex.Transaction, deps: ApplyDeps, page: Page, singly: boolean): Promise<Counts> => {
  const { inbox } = deps;
  const counts = zero();
  await inbox.fence(trx, page.hold);
  const facts = page.entries.flatMap((entry) => (entry.kind === 'fact' ? [entry.envelope] : []));
  const { heads, seen, waiting, quarantined } = facts.length === 0 ? NOTHING_KNOWN() : await inbox.look(trx, facts);
  const batches = createBatches(trx, deps.handlers);
  const moved = new Map<string, { source: string; subject: string; head: Head }>();
  const applied: Envelope[] = [];
  let piled = false;

  const bury = async (fact: Fact, sequenceNumber: string, error: string | null): Promise<void> => {
    piled = true;
    const { source, id: eventId } = fact.envelope;
    await inbox.bury(trx, page.hold.shardId, { key: keyOf(fact.envelope), source, eventId, sequenceNumber, text: fact.text, error });
  };

  /** Null = done; otherwise why the fact can never be applied. */
  const attempt = async (fact: Fact, replay: boolean): Promise<string | null> => {
    try {
      const takers = takersOf(deps, fact, replay);
      if (singly)
        await trx.transaction(async (inner) => {
          for (const handler of takers) await handler.apply(inner, fact.envelope);
        });
      else if (takers.length > 0) await batches.add(takers, keyOf(fact.envelope), fact.envelope);
      counts[takers.length > 0 ? 'applied' : 'passed'] += 1;
      return null;
    } catch (error) {
      if (isTransient(error)) throw error;
      if (!singly) throw new RunSingly(reasonOf(error), { cause: error });
      return reasonOf(error);
    }
  };

  const take = async (first: Fact, sequenceNumber: string): Promise<void> => {
    const replay = page.replayUntil !== null && BigInt(sequenceNumber) <= page.replayUntil;
    const { source, subject } = first.envelope;
    const pair = pairOf(first.envelope);
    const key = keyOf(first.envelope);
    const early = waiting.get(pair) ?? [];
    for (let fact: Fact | undefined = first; fact !== undefined; ) {
      const { envelope } = fact;
      const position: Head = { epoch: envelope.epoch, sequence: BigInt(envelope.sequence) };
      const known = seen.has(`${source} ${envelope.id}`);
      if (quarantined.has(key)) {
        if (known) counts.duplicate += 1;
        else {
          await bury(fact, sequenceNumber, null);
          counts.behind += 1;
        }
        return;
      }
      const verdict = deps.ordered === false ? 'next' : judge(heads.get(pair) ?? null, position, replay);
      if (verdict === 'duplicate') {
        counts.duplicate += 1;
        return;
      }
      if (verdict === 'gap') {
        await inbox.hold(trx, fact);
        waiting.set(pair, early);
        early.push(fact.text);
        piled = true;
        counts.held += 1;
        return;
      }
      if (known && !replay) counts.duplicate += 1;
      else {
        const poison = await attempt(fact, replay);
        if (poison !== null) {
          await bury(fact, sequenceNumber, poison);
          quarantined.add(key);
          counts.quarantined += 1;
          return;
        }
        applied.push(envelope);
        seen.add(`${source} ${envelope.id}`);
      }
      if (deps.ordered === false) return;
      heads.set(pair, position);
      moved.set(pair, { source, subject, head: position });
      fact = undefined;
      if (early.length > 0) {
        await inbox.release(trx, source, subject, position);
        fact = early
          .map((text): Fact => ({ text, envelope: envelopeSchema.parse(JSON.parse(text)) }))
          .find((next) => judge(position, { epoch: next.envelope.epoch, sequence: BigInt(next.envelope.sequence) }) === 'next');
      }
    }
  };

  for (const entry of page.entries) {
    if (entry.kind === 'fact') await take(entry, entry.sequenceNumber);
    else if (entry.kind === 'foreign') counts.foreign += 1;
    else {
      const eventId = `${page.hold.shardId}:${entry.sequenceNumber}:${entry.subsequence}`;
      const { sequenceNumber, text, why } = entry;
      await inbox.bury(trx, page.hold.shardId, { key: null, source: 'malformed', eventId, sequenceNumber, text, error: why });
      piled = true;
      counts.malformed += 1;
    }
  }
  try {
    await batches.flush();
  } catch (error) {
    if (isTransient(error)) throw error;
    throw new RunSingly(reasonOf(error), { cause: error });
  }
  if (piled) await inbox.checkRoom(trx, deps.heldLimit);
  await inbox.save(trx, page.hold.shardId, { heads: [...moved.values()], applied, at: page.entries.at(-1) ?? null, ended: page.ended });
  return counts;
};

/**
 * Applies a page and moves the checkpoint, in one transaction. A fact that fails for good is quarantined with its key, in a second run that gives each
 * fact a savepoint: the first run pays for none, which is what lets thousands per second through.
 * @throws Fenced when the shard is another's; a transient error (nothing has changed then, the same page may be applied again)
 */
export const applyPage = async (deps: ApplyDeps, page: Page): Promise<Counts> => {
  const inOne = (singly: boolean) => deps.db.transaction((trx) => applyIn(trx, deps, page, singly));
  try {
    return await inOne(false);
  } catch (error) {
    if (!(error instanceof RunSingly)) throw error;
    return inOne(true);
  }
};
