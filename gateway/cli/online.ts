import pg from 'pg';
import { type Config, maskSecrets } from '../config.ts';
import { checkHost } from '../proxy/check.ts';
import { createConnector } from '../proxy/connect.ts';

/** One neighbour that was asked. `url` shows no password. */
export type Answered = { readonly what: string; readonly url: string; readonly ok: boolean; readonly why: string | null };

/** ms for each neighbour; they are asked side by side. */
const TIMEOUT = 5_000;

type Question = readonly [what: string, url: string, ask: (url: string) => Promise<void>];

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

type Hosts = Pick<Config['legacy'], 'urls' | 'tls' | 'health'>;

/** As the gateway reaches it; with active checks, as they ask. */
const askHosts = (what: string, { urls, tls, health }: Hosts): Question[] =>
  urls.map((url) => [
    what,
    url,
    async () => {
      const status = await checkHost(createConnector({ url, tls }), { path: health?.path ?? '/', timeoutMs: TIMEOUT });
      if (health?.path != null && (status === null || status < health.status.from || status > health.status.to))
        throw new Error(`unhealthy: ${health.path} answers ${status}`);
    },
  ]);

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
  const questions: Question[] = [
    ...askHosts('legacy', config.legacy),
    ...Object.entries(config.contexts).flatMap(([name, { extracted }]) =>
      extracted === null ? [] : askHosts(`extracted ${name}`, extracted),
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
