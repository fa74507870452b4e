import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { migrate } from '../../gateway/migrations/migrate.ts';

/** Facts through the one way into the outbox, 200 bytes of data each, kept aside so that every round begins with the same. */
export const makeFacts = async (url: string, context: string, facts: number, subjects: number): Promise<void> => {
  // a gateway may never have run here
  await migrate(url);
  await using(url, async (client) => {
    await prepare(client, context);
    await append(client, context, 0, facts, subjects);
    await client.query('create table public.bench_outbox as table banyan.outbox');
  });
};

const append = (client: pg.Client, context: string, from: number, facts: number, subjects: number) =>
  client.query(
    `select count(*) from generate_series($4::int, $4::int + $2::int - 1) n, banyan.append_fact($1, 'legacy', 'order.placed.v1', (100000 + n % $3::int)::text,
       jsonb_build_object('id', n, 'userId', 'user-1', 'items', jsonb_build_array(jsonb_build_object('productId', 1, 'quantity', 2, 'price', 12.5)),
         'note', repeat('x', 100)), 'capture', null, null, gen_random_uuid()::text)`,
    [context, facts, subjects, from],
  );

/** The same facts, so many a second, as they come from commands: in small transactions. @returns how many seconds it took */
export const feedOutbox = async (url: string, context: string, perSecond: number, seconds: number): Promise<number> => {
  const start = performance.now();
  await using(url, async (client) => {
    for (let made = 0; made < perSecond * seconds; ) {
      const due = Math.min(perSecond * seconds, Math.floor(((performance.now() - start) / 1000) * perSecond));
      if (due > made) await append(client, context, made, due - made, 5_000);
      made = Math.max(made, due);
      await pause(5);
    }
  });
  return (performance.now() - start) / 1000;
};

const prepare = async (client: pg.Client, context: string): Promise<void> => {
  await client.query("insert into banyan.context (name, stage) values ($1, 'shadow') on conflict do nothing", [context]);
  await client.query('truncate banyan.outbox, banyan.subject_head');
};

/** All of them wait again, or the first `count`. */
export const fillOutbox = (url: string, count?: number): Promise<void> =>
  using(url, async (client) => {
    await client.query('truncate banyan.outbox');
    if (count === 0) await client.query('truncate banyan.subject_head');
    else await client.query('insert into banyan.outbox overriding system value table public.bench_outbox');
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
