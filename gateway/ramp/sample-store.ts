import type { Upstream } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';

/** `bucket`: 0..480 latencies, -1 failed, -2 open breaker (migration 030-ramp). */
export type SampleRow = {
  readonly context: string;
  /** `since` of the flag under which it was seen: the step. */
  readonly since: Date;
  readonly upstream: Upstream;
  readonly bucket: number;
  readonly n: number;
};
export type Example = {
  readonly context: string;
  readonly since: Date;
  readonly kind: 'failed' | 'slow';
  readonly requestId: string;
  readonly route: string;
  /** ms. */
  readonly ms: number;
};

/** Kept per context and kind. */
const EXAMPLES = 5;

const byKey = (a: SampleRow, b: SampleRow): number =>
  a.context.localeCompare(b.context) ||
  a.since.getTime() - b.since.getTime() ||
  a.upstream.localeCompare(b.upstream) ||
  a.bucket - b.bucket;

/** Adds to the counters in one statement, in one order for everybody so that no two members wait for each other in a circle. */
export const addSamples = async (
  db: Knex,
  batch: { readonly rows: readonly SampleRow[]; readonly examples: readonly Example[] },
): Promise<void> => {
  const rows = [...batch.rows].sort(byKey);
  await db.raw(
    `insert into banyan.ramp_sample as s (context, since, upstream, bucket, n)
     select * from unnest(?::text[], ?::timestamptz[], ?::text[], ?::smallint[], ?::bigint[])
     on conflict (context, since, upstream, bucket) do update set n = s.n + excluded.n`,
    [
      rows.map((row) => row.context),
      rows.map((row) => row.since.toISOString()),
      rows.map((row) => row.upstream),
      rows.map((row) => row.bucket),
      rows.map((row) => row.n),
    ],
  );
  const { examples } = batch;
  if (examples.length === 0) return;
  await db('banyan.ramp_example').insert(
    examples.map(({ context, since, kind, requestId, route, ms }) => ({ context, since, kind, request_id: requestId, route, ms })),
  );
  const contexts = [...new Set(examples.map(({ context }) => context))];
  await db.raw(
    `delete from banyan.ramp_example where id in (
       select id from (select id, row_number() over (partition by context, kind order by id desc) as nth from banyan.ramp_example where context = any(?)) numbered
       where nth > ?)`,
    [contexts, EXAMPLES],
  );
};

export const loadSamples = async (db: Knex, context: string, since: Date): Promise<SampleRow[]> =>
  (
    await db('banyan.ramp_sample')
      .where({ context, since: since.toISOString() })
      .select<{ upstream: Upstream; bucket: number; n: string }[]>('upstream', 'bucket', 'n')
  ).map(({ upstream, bucket, n }) => ({ context, since, upstream, bucket, n: Number(n) }));

export const loadExamples = async (db: Knex, context: string, since: Date): Promise<Example[]> =>
  (
    await db('banyan.ramp_example')
      .where({ context, since: since.toISOString() })
      .orderBy('id', 'desc')
      .limit(2 * EXAMPLES)
      .select<{ kind: Example['kind']; request_id: string; route: string; ms: number }[]>('kind', 'request_id', 'route', 'ms')
  ).map(({ request_id, ...rest }) => ({ context, since, requestId: request_id, ...rest }));

/** Counters of steps that are over. */
export const forgetSamples = async (db: Knex, context: string, before: Date): Promise<void> => {
  await db('banyan.ramp_sample').where({ context }).where('since', '<', before.toISOString()).delete();
  await db('banyan.ramp_example').where({ context }).where('since', '<', before.toISOString()).delete();
};
