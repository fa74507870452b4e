import type { Knex } from 'knex';
import { createEta } from './eta.ts';
import { type Failpoints, NO_FAILPOINTS } from './failpoints.ts';
import { createLanes } from './lanes.ts';
import { createLinger } from './linger.ts';
import { createLoop } from './loop.ts';
import { createArena, markSent, type OutboxRow, orphansAmong, readOutbox, type SentRecord } from './outbox.ts';
import { createPace } from './pace.ts';
import { type Packed, pack } from './pack.ts';
import { createSeriesBook, type Series } from './series.ts';
import type { EventStream, PutResult } from './stream.ts';
import type { Log } from './write.ts';

export type RelayDeps = {
  /** A pool of its own, two connections: a busy data plane must not keep facts back, nor the other way round. */
  readonly db: Knex;
  readonly memberId: string;
  readonly stream: EventStream;
  readonly log: Log;
  /** Several facts in one record. Default true. */
  readonly aggregate?: boolean;
  /** `backlog.maxBytes`. */
  readonly maxBacklogBytes: number;
  /** Rows read per lane and round; default 500. */
  readonly rowsPerLane?: number;
  readonly leaseMs?: number;
  readonly fail?: Failpoints;
  /** Told of facts that the stream took or refused, for metrics. */
  readonly onFacts?: (context: string, outcome: 'published' | 'failed', count: number) => void;
};

/** What waits in the outbox, as last counted. */
export type Backlog = {
  readonly rows: number;
  readonly bytes: number;
  readonly oldestAgeMs: number;
  /** Until nothing waits if it goes on as it does; null = it does not get less. */
  readonly etaMs: number | null;
};

/** Since the start of this process. `failed` counts records, the others successes. */
export type RelayStats = {
  readonly records: number;
  readonly facts: number;
  readonly bytes: number;
  readonly failed: number;
  readonly lanes: number;
  /** What the slowest shard is thought to take; null = none throttles. */
  readonly shardBytesPerSecond: number | null;
};

export type Relay = {
  readonly start: () => void;
  /** Finishes the batch under way, gives its lanes back, closes the stream. */
  readonly stop: () => Promise<void>;
  /** New facts are there. */
  readonly wake: () => void;
  readonly backlog: () => Backlog;
  /** At 95 % of `maxBacklogBytes`: ledgered commands are refused. */
  readonly backlogFull: () => boolean;
  readonly oldestUnpublishedAgeMs: (context: string) => Promise<number>;
  readonly stats: () => RelayStats;
  /** null, or what keeps facts from the stream, in one line. */
  readonly trouble: () => string | null;
};

/** `/banyan/{context}/{upstream}` (DESIGN.md section 6). */
const contextOf = (source: string): string => source.split('/')[2] ?? '';

const REST_MS = 100;
/** Of one lane and round: what one request takes, so that no round holds much more in memory. */
const LANE_BYTES = 1_048_576;
const MAX_BACKOFF_MS = 2_000;
/** Series whose last sequence is kept in memory. */
const MAX_REMEMBERED = 50_000;
/** Capture waits from here on; its own log keeps what comes. */
const PAUSE_CAPTURE = 0.8;
const REFUSE_COMMANDS = 0.95;

/** Transactions that append may be open for so long without being waited for. */
const LAST_HOUR = "banyan.outbox_hour(clock_timestamp() - interval '1 hour')";

/** Full jitter (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/). */
const backoff = (failures: number): number => Math.random() * Math.min(MAX_BACKOFF_MS, 50 * 2 ** Math.min(failures, 10));

/** Age of a context's oldest fact that is not on the stream yet, ms; 0 when there is none. */
export const oldestUnpublishedAgeMs = async (db: Knex, context: string): Promise<number> => {
  const answer = (await db.raw(
    `select coalesce(extract(epoch from clock_timestamp() - min(created_at)) * 1000, 0) as age from banyan.outbox where context = ? and published_at is null`,
    [context],
  )) as { rows: { age: string }[] };
  return Math.round(Number(answer.rows[0]!.age));
};

/** Moves outbox rows to the stream, in order per subject, at least once. */
export const createRelay = (deps: RelayDeps): Relay => {
  const { db, stream, log, memberId } = deps;
  const fail = deps.fail ?? NO_FAILPOINTS;
  const lanes = createLanes({ db, memberId, ...(deps.leaseMs === undefined ? {} : { ttlMs: deps.leaseMs }) });
  const held = new Map<number, { failures: number; until: number }>();
  const totals = { records: 0, facts: 0, bytes: 0, failed: 0 };
  let backlog: Backlog = { rows: 0, bytes: 0, oldestAgeMs: 0, etaMs: 0 };
  const eta = createEta();
  let trouble: string | null = null;
  let stuck: string | null = null;
  let failures = 0;
  let capturePaused = false;
  /** Nothing waits below; what a long transaction commits there is found by the next count. */
  let floor = '0';
  let resting = false;
  let woken = false;
  const linger = createLinger();
  const pace = createPace();
  const book = createSeriesBook(MAX_REMEMBERED);
  const arena = createArena();

  const report = (what: string | null, level: 'warn' | 'error' = 'warn') => {
    if (what !== null && what !== trouble) log[level]({ error: what }, 'facts do not reach the stream');
    trouble = what;
  };

  /** Rows that do not follow what was sent: usually none to ask about, since this process sent what came before. */
  const orphansOf = async (rows: readonly OutboxRow[]): Promise<Set<string>> => {
    const firsts = new Set<Series>();
    const doubtful: string[] = [];
    for (const { series, sequence, position, ordered } of rows) {
      if (!ordered || firsts.has(series)) continue;
      firsts.add(series);
      if (sequence !== 1 && series.sent !== sequence - 1) doubtful.push(position);
    }
    return doubtful.length === 0 ? new Set() : orphansAmong(db, doubtful);
  };

  const mark = async (tokens: ReadonlyMap<number, string>, sent: readonly SentRecord[]): Promise<void> => {
    for (let attempt = 0; ; attempt += 1) {
      try {
        fail.hit('mark-before');
        await markSent(db, memberId, tokens, sent);
        fail.hit('mark-after');
        return;
      } catch (error) {
        // unmarked rows are sent again: duplicates, which readers drop; worth a few tries
        if (attempt === 3) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20 * 2 ** attempt));
      }
    }
  };

  /** Facts of one record mostly share a source, so they are counted in runs. */
  const tell = (rows: readonly OutboxRow[], outcome: 'published' | 'failed'): void => {
    let from = 0;
    for (let i = 1; i <= rows.length; i++) {
      if (i < rows.length && rows[i]!.series.source === rows[from]!.series.source) continue;
      deps.onFacts?.(contextOf(rows[from]!.series.source), outcome, i - from);
      from = i;
    }
  };

  /** All of them; at the failpoint some are refused instead, as a shard would. */
  const putSome = async (packed: readonly Packed[]): Promise<readonly PutResult[]> => {
    const refused = new Set(packed.filter(() => fail.due('put-partial')));
    const asked = packed.filter((one) => !refused.has(one));
    const results = asked.length === 0 ? [] : await stream.put(asked.map((one) => one.record));
    if (refused.size === 0) return results;
    let at = 0;
    return packed.map((one) => (refused.has(one) ? { ok: false, code: 'InternalFailure', throttled: false } : results[at++]!));
  };

  const send = async (tokens: ReadonlyMap<number, string>, packed: readonly Packed[]): Promise<void> => {
    fail.hit('put-before');
    const results = await putSome(packed);
    fail.hit('put-after');
    const sent: SentRecord[] = [];
    let refusal: string | null = null;
    for (const [index, one] of packed.entries()) {
      const result = results[index]!;
      if (result.ok) {
        sent.push({ lane: one.lane, rows: one.rows, shardId: result.shardId, sequenceNumber: result.sequenceNumber });
        held.delete(one.lane);
        pace.taken(one.lane, result.shardId, one.bytes, Date.now());
        totals.records += 1;
        totals.facts += one.rows.length;
        totals.bytes += one.record.data.length;
        tell(one.rows, 'published');
        for (const row of one.rows) row.series.sent = row.sequence;
      } else {
        totals.failed += 1;
        tell(one.rows, 'failed');
        if (!result.throttled) refusal = `the stream refused a record: ${result.code}`;
      }
    }
    // after the loop: one failed record slows its whole lane
    for (const [index, one] of packed.entries()) {
      if (results[index]!.ok) continue;
      const result = results[index]!;
      if (!result.ok && result.throttled) pace.throttled(one.lane, Date.now());
      const before = held.get(one.lane)?.failures ?? 0;
      held.set(one.lane, { failures: before + 1, until: Date.now() + backoff(before + 1) });
    }
    if (sent.length > 0) await mark(tokens, sent);
    report(refusal ?? stuck);
  };

  const round = async (): Promise<number> => {
    resting = false;
    book.trim();
    arena.reset();
    try {
      const now = Date.now();
      const budgets = new Map<number, number>();
      for (const lane of lanes.held().keys())
        if ((held.get(lane)?.until ?? 0) <= now) budgets.set(lane, Math.min(LANE_BYTES, pace.budget(lane, now)));
      const tokens = new Map([...lanes.held()].filter(([lane]) => (budgets.get(lane) ?? 0) > 0));
      if (tokens.size === 0) return linger.pauseMs(now);
      woken = false;
      const most = new Map([...budgets].filter(([lane]) => tokens.has(lane)));
      const rows = await readOutbox(db, most, floor, deps.rowsPerLane ?? 500, book, arena);
      const { packed, gaps, oversize } = pack(rows, deps.aggregate ?? true, await orphansOf(rows), arena.room);
      stuck = gaps[0]
        ? `fact ${gaps[0].sequence} of subject ${gaps[0].series.subject.name} does not follow what was sent; its subject waits`
        : oversize[0]
          ? `fact ${oversize[0].sequence} of subject ${oversize[0].series.subject.name} is larger than 1 MiB; its subject waits`
          : null;
      if (stuck !== null) report(stuck, 'error');
      if (packed.length === 0) {
        resting = !woken;
        return woken ? linger.pauseMs(now) : REST_MS;
      }
      lanes.busy(new Set(packed.map((one) => one.lane)));
      await send(tokens, packed);
      failures = 0;
      const facts = packed.reduce((sum, one) => sum + one.rows.length, 0);
      linger.sent(facts, Date.now());
      // rows that found no place in this request are due at once
      return facts < rows.length || rows.length >= (deps.rowsPerLane ?? 500) ? 0 : linger.pauseMs(Date.now());
    } catch (error) {
      failures += 1;
      const name = error instanceof Error ? error.name : '';
      report(
        name === 'ResourceNotFoundException' ? await stream.check() : `${name}: ${error instanceof Error ? error.message : String(error)}`,
      );
      return backoff(failures);
    } finally {
      lanes.busy(new Set());
    }
  };

  const lease = async (): Promise<number> => {
    const every = (deps.leaseMs ?? 4_000) / 4;
    try {
      await lanes.tick();
    } catch (error) {
      report(`the store does not answer: ${error instanceof Error ? error.message : String(error)}`);
    }
    return every * (0.8 + Math.random() * 0.4);
  };

  const count = async (): Promise<number> => {
    const began = Date.now();
    try {
      const answer = (await db.raw(`select count(*) as rows, coalesce(sum(octet_length(envelope)), 0) as bytes,
        coalesce(extract(epoch from clock_timestamp() - min(created_at)) * 1000, 0) as age,
        coalesce(least(min(position) >> 40 << 40, ${LAST_HOUR}), ${LAST_HOUR}) as floor from banyan.outbox where published_at is null`)) as {
        rows: { rows: string; bytes: string; age: string; floor: string }[];
      };
      const [found] = answer.rows;
      floor = found!.floor;
      const rows = Number(found!.rows);
      backlog = {
        rows,
        bytes: Number(found!.bytes),
        oldestAgeMs: Math.round(Number(found!.age)),
        etaMs: eta.counted(rows, performance.now()),
      };
      const pause = backlog.bytes >= PAUSE_CAPTURE * deps.maxBacklogBytes;
      if (pause || capturePaused) {
        await db.raw('update banyan.pressure set capture_paused = ?, at = clock_timestamp()', [pause]);
        if (pause !== capturePaused)
          log.warn(
            { bytes: backlog.bytes, maxBytes: deps.maxBacklogBytes },
            pause ? 'the backlog is at 80 %: capture waits' : 'capture goes on',
          );
        capturePaused = pause;
      }
    } catch (error) {
      log.warn({ error: String(error) }, 'the backlog could not be counted');
    }
    // counting a large backlog is work: at most a twentieth of the time
    return Math.max(1_000, 20 * (Date.now() - began));
  };

  const leases = createLoop(lease);
  const sending = createLoop(round);
  const counting = createLoop(count);
  return {
    start: () => {
      leases.start();
      sending.start();
      counting.start();
      void stream.check().then((found) => {
        if (found !== 'ready') report(found);
      });
    },
    stop: async () => {
      await sending.stop();
      await Promise.all([leases.stop(), counting.stop()]);
      await lanes
        .releaseAll()
        .catch((error: unknown) => log.warn({ error: String(error) }, 'lanes could not be given back; their leases run out'));
      stream.close();
    },
    // while facts go out anyway the next ones wait for the linger: a round for each would cost more than all the rest
    wake: () => {
      woken = true;
      if (resting) sending.wake();
    },
    backlog: () => backlog,
    backlogFull: () => backlog.bytes >= REFUSE_COMMANDS * deps.maxBacklogBytes,
    oldestUnpublishedAgeMs: (context) => oldestUnpublishedAgeMs(db, context),
    stats: () => ({ ...totals, lanes: lanes.held().size, shardBytesPerSecond: pace.slowest() }),
    trouble: () => trouble,
  };
};
