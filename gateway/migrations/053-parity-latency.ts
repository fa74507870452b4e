import type { Knex } from 'knex';

export const name = '053-parity-latency';

/** Latencies of both sides for the same queries, in log-linear buckets (gateway/core/parity/latency.ts); emptied with the window. */
export const up = async (db: Knex): Promise<void> => {
  await db.raw(`
create table banyan.parity_latency (
  context  text not null,
  route    text not null,
  upstream text not null check (upstream in ('legacy', 'extracted')),
  -- primary: a client waited for it; copy: only the comparison did
  asked    text not null check (asked in ('primary', 'copy')),
  bucket   integer not null,
  n        bigint not null,
  primary key (context, route, upstream, asked, bucket)
);
`);
};
