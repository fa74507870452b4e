import type { Knex } from 'knex';
import type { Series, SeriesBook } from './series.ts';

/**
 * A fact that waits. `position` is a bigint as text; `data` the bytes of its envelope. `series` counts by partition key, which is the subject unless the
 * context waives its order (`ordered` false).
 */
export type OutboxRow = {
  readonly position: string;
  readonly series: Series;
  readonly sequence: number;
  readonly ordered: boolean;
  readonly data: Uint8Array;
};

type LaneRows = { readonly lane: number; readonly heads: string; readonly envelopes: string };

const NEWLINE = 10;
const ONE = 49;

/**
 * Memory for the envelopes of one round, used again for the next: fresh buffers of megabytes, round after round, made the collector of garbage the most
 * expensive part of a relay.
 */
export type Arena = {
  /** The text's bytes, in memory that is valid until `reset`. */
  readonly take: (text: string) => Buffer;
  /** So many bytes, as valid, with anything in them. */
  readonly room: (bytes: number) => Buffer;
  readonly reset: () => void;
};

const SEGMENT_BYTES = 4 * 1_048_576;
/** Envelopes and records of one request, and some; more is given back. */
const MAX_SEGMENTS = 4;

export const createArena = (): Arena => {
  let segments: Buffer[] = [];
  let current = 0;
  let at = 0;
  /** The segment that has room for `bytes` at `at`. */
  const segmentFor = (bytes: number): Buffer => {
    for (; current < segments.length; current += 1, at = 0) if (at + bytes <= segments[current]!.length) return segments[current]!;
    const fresh = Buffer.allocUnsafeSlow(Math.max(SEGMENT_BYTES, bytes));
    segments.push(fresh);
    return fresh;
  };
  return {
    take: (text) => {
      const segment = segmentFor(text.length * 3);
      const from = at;
      at += segment.write(text, from, 'utf8');
      return segment.subarray(from, at);
    },
    room: (bytes) => {
      const segment = segmentFor(bytes);
      const from = at;
      at += bytes;
      return segment.subarray(from, at);
    },
    reset: () => {
      if (segments.length > MAX_SEGMENTS || segments.some((segment) => segment.length > SEGMENT_BYTES)) segments = [];
      current = 0;
      at = 0;
    },
  };
};

/**
 * One line of `heads` for each envelope: position, sequence, source, epoch, 1 = in order, partition key as JSON, tabs between. JSON text and heads hold no raw newline.
 * Two long texts for many facts instead of a result row for each: reading those cost more than all that is done with them.
 */
export const readLane = (rows: LaneRows, book: SeriesBook, arena: Arena): OutboxRow[] => {
  const heads = rows.heads.split('\n');
  const bytes = arena.take(rows.envelopes);
  const view = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: OutboxRow[] = [];
  let from = 0;
  for (const head of heads) {
    const first = head.indexOf('\t');
    const second = head.indexOf('\t', first + 1);
    const fourth = head.indexOf('\t', head.indexOf('\t', second + 1) + 1);
    const json = head.slice(fourth + 3);
    const subject = json.includes('\\') ? (JSON.parse(json) as string) : json.slice(1, -1);
    const newline = bytes.indexOf(NEWLINE, from);
    const to = newline < 0 ? bytes.length : newline;
    found.push({
      position: head.slice(0, first),
      sequence: Number(head.slice(first + 1, second)),
      series: book.of(head.slice(second + 1, fourth), subject, rows.lane),
      ordered: head.charCodeAt(fourth + 1) === ONE,
      data: view.subarray(from, to),
    });
    from = to + 1;
  }
  return found;
};

/** Of one result row: small enough to be forgotten cheaply, large enough to cost nothing. */
const PIECE_BYTES = 32_768;

/**
 * What waits in these lanes, by lane and position. At most `limit` rows of a lane, and no more bytes than `lanes` says of it unless its first row alone is larger.
 * @param from a position below which nothing waits: the parts before it are not looked at.
 * `position + 0` is what the index `outbox_waiting` holds: the primary key must not look like a way to read in order. Rows are valid until the arena is reset.
 */
export const readOutbox = async (
  db: Knex,
  lanes: ReadonlyMap<number, number>,
  from: string,
  limit: number,
  book: SeriesBook,
  arena: Arena,
): Promise<OutboxRow[]> => {
  const answer = (await db.raw(
    `select l.lane, x.first, x.heads, x.envelopes from unnest(?::smallint[], ?::integer[]) as l(lane, most) cross join lateral (
       select min(position) as first, string_agg(concat_ws(E'\\t', position, sequence, source, epoch, (partition_key is null)::integer, to_json(coalesce(partition_key, subject))), E'\\n' order by position) as heads,
         string_agg(envelope, E'\\n' order by position) as envelopes
       from (select o.*, sum(octet_length(envelope)) over (order by position) - octet_length(envelope) as before from (
         select position, sequence, source, epoch, subject, partition_key, envelope from banyan.outbox
         where lane = l.lane and published_at is null and position >= ? order by position + 0 limit ?) o) b
       where before < l.most group by before / ${PIECE_BYTES}) x`,
    [[...lanes.keys()], [...lanes.values()], from, limit],
  )) as { rows: (LaneRows & { readonly first: string })[] };
  // sorted here: PostgreSQL would write all of the texts to disk for it
  const pieces = answer.rows.toSorted((a, b) => a.lane - b.lane || Number(a.first) - Number(b.first));
  return pieces.flatMap((rows) => readLane(rows, book, arena));
};

/** Positions, among these, of rows whose predecessor is not on the stream. */
export const orphansAmong = async (db: Knex, positions: readonly string[]): Promise<Set<string>> => {
  const answer = (await db.raw(
    `select o.position from banyan.outbox o where o.position = any (?) and not exists (select 1 from banyan.outbox p
       where p.source = o.source and p.subject = o.subject and p.epoch = o.epoch and p.sequence = o.sequence - 1 and p.published_at is not null)
     -- its part of the outbox may be gone
     and not exists (select 1 from banyan.subject_sent s where s.source = o.source and s.subject = o.subject and s.epoch = o.epoch and s.sequence >= o.sequence - 1)`,
    [[...positions]],
  )) as { rows: { position: string }[] };
  return new Set(answer.rows.map((row) => row.position));
};

/** Hours for which the outbox has a part in advance. */
const AHEAD_HOURS = 24;

/** Prepares the parts of the hours to come, and drops those whose facts are all on the stream, for `keepMs`. */
export const turnOutboxOver = async (db: Knex, keepMs: number): Promise<{ readonly made: number; readonly dropped: number }> => {
  const answer = (await db.raw('select * from banyan.outbox_turn_over(?, ?)', [AHEAD_HOURS, keepMs])) as {
    rows: [{ made: number; dropped: number }];
  };
  return answer.rows[0];
};

/** A record that is on the stream. */
export type SentRecord = {
  readonly lane: number;
  readonly rows: readonly OutboxRow[];
  readonly shardId: string;
  readonly sequenceNumber: string;
};

/** Marks the rows of lanes that are still held under these tokens, and moves their ledger rows on. */
export const markSent = async (
  db: Knex,
  memberId: string,
  tokens: ReadonlyMap<number, string>,
  sent: readonly SentRecord[],
): Promise<void> => {
  await db.raw('select banyan.relay_mark_records(?, ?::smallint[], ?::bigint[], ?::smallint[], ?::text[], ?::text[], ?::text[])', [
    memberId,
    [...tokens.keys()],
    [...tokens.values()],
    sent.map((one) => one.lane),
    sent.map((one) => one.shardId),
    sent.map((one) => one.sequenceNumber),
    sent.map((one) => one.rows.map((row) => row.position).join(',')),
  ] as unknown as string[]);
};
