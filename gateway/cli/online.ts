import pg from 'pg';
import { type Config, maskSecrets } from '../config.ts';

/** One neighbour that was asked. `url` shows no password. */
export type Answered = { readonly what: string; readonly url: string; readonly ok: boolean; readonly why: string | null };

/** ms for each neighbour; they are asked side by side. */
const TIMEOUT = 5_000;

const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return `nothing in ${TIMEOUT / 1_000} s`;
  const cause = (error.cause ?? error) as NodeJS.ErrnoException;
  return cause.code ?? cause.message;
};

/** Any HTTP answer will do, also an error: somebody is there. */
const askHttp = async (url: string): Promise<void> => {
  const response = await fetch(url, { method: 'GET', redirect: 'manual', signal: AbortSignal.timeout(TIMEOUT) });
  await response.body?.cancel();
};

const askPostgres = async (url: string): Promise<void> => {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: TIMEOUT, query_timeout: TIMEOUT });
  // A connection that breaks later is reported by the query; without a listener it would end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('select 1');
  } finally {
    await client.end().catch(() => undefined);
  }
};

/** Asks every neighbour that a configuration names. AWS itself is not asked: that needs credentials and costs money. */
export const askAround = async (config: Config): Promise<readonly Answered[]> => {
  const questions: (readonly [string, string, (url: string) => Promise<void>])[] = [
    ...config.legacy.urls.map((url) => ['legacy', url, askHttp] as const),
    ...Object.entries(config.contexts).flatMap(([name, { extracted }]) =>
      extracted === null ? [] : [[`extracted ${name}`, extracted.url, askHttp] as const],
    ),
    ...(config.store === null ? [] : [['store', config.store, askPostgres] as const]),
    ...(config.adapter.legacyDatabase === null ? [] : [['legacy database', config.adapter.legacyDatabase, askPostgres] as const]),
    ...(config.streams === null || config.streams.endpoint === null ? [] : [['streams', config.streams.endpoint, askHttp] as const]),
  ];
  return Promise.all(
    questions.map(async ([what, address, ask]): Promise<Answered> => {
      const url = String(maskSecrets(address));
      try {
        await ask(address);
        return { what, url, ok: true, why: null };
      } catch (error) {
        return { what, url, ok: false, why: reasonOf(error) };
      }
    }),
  );
};
