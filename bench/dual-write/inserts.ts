import pg from 'pg';

/** Single-row inserts of one transaction each, prepared, as pgbench's simple mode does: what this server gives anybody. @returns transactions per second */
export const insertRate = async (url: string, connections: number, seconds: number): Promise<number> => {
  const clients = Array.from({ length: connections }, () => new pg.Client({ connectionString: url }));
  await Promise.all(clients.map((client) => client.connect()));
  try {
    await clients[0]!.query(
      'create table if not exists public.bench_insert (id bigint generated always as identity primary key, key text not null, body text not null)',
    );
    const body = 'x'.repeat(500);
    const until = performance.now() + seconds * 1000;
    let done = 0;
    await Promise.all(
      clients.map(async (client) => {
        while (performance.now() < until) {
          await client.query({
            name: 'insert',
            text: 'insert into public.bench_insert (key, body) values ($1, $2)',
            values: [`k${done}`, body],
          });
          done += 1;
        }
      }),
    );
    return Math.round(done / seconds);
  } finally {
    await Promise.all(clients.map((client) => client.end()));
  }
};
