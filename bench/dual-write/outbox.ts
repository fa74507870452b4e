import pg from 'pg';

/** Facts through the one way into the outbox, 200 bytes of data each, kept aside so that every round begins with the same. */
export const makeFacts = (url: string, context: string, facts: number, subjects: number): Promise<void> =>
  using(url, async (client) => {
    await client.query('truncate banyan.outbox, banyan.subject_head');
    await client.query(
      `select count(*) from generate_series(0, $2::int - 1) n, banyan.append_fact($1, 'legacy', 'order.placed.v1', (100000 + n % $3::int)::text,
         jsonb_build_object('id', n, 'userId', 'user-1', 'items', jsonb_build_array(jsonb_build_object('productId', 1, 'quantity', 2, 'price', 12.5)),
           'note', repeat('x', 100)), 'capture', null, null, gen_random_uuid()::text)`,
      [context, facts, subjects],
    );
    await client.query('create table public.bench_outbox as table banyan.outbox');
  });

/** All of them wait again. */
export const fillOutbox = (url: string): Promise<void> =>
  using(url, async (client) => {
    await client.query('truncate banyan.outbox');
    await client.query('insert into banyan.outbox overriding system value table public.bench_outbox');
    await client.query('analyze banyan.outbox');
    await client.query('checkpoint');
  });

const using = async (url: string, work: (client: pg.Client) => Promise<void>): Promise<void> => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
};
