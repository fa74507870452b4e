import { AppError } from '@banyan/contracts/errors.ts';

/** Asks the adapter (docs/interfaces.md). Its own problems pass through with their status; nobody there is 502. */
export type AdapterClient = {
  /** @param body of a POST; default `{}` */
  ask(method: 'GET' | 'POST', path: string, body?: object): Promise<{ readonly status: number; readonly body: unknown }>;
};

/** Installing triggers and taking a snapshot look at whole tables. */
const WAIT_MS = 60_000;
/** More than any state of capture needs. */
const MAX_ANSWER = 1_048_576;

const readLimited = async (response: Response): Promise<string> => {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > MAX_ANSWER) throw new Error('the answer is larger than 1 MiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
};

export const createAdapterClient = (deps: { url: () => string; token: string | null; waitMs?: number }): AdapterClient => ({
  async ask(method, path, body = {}) {
    const url = deps.url();
    let status: number;
    let text: string;
    try {
      const response = await fetch(new URL(path, url), {
        method,
        headers: {
          accept: 'application/json',
          ...(deps.token === null ? {} : { authorization: `Bearer ${deps.token}` }),
          ...(method === 'POST' ? { 'content-type': 'application/json' } : {}),
        },
        ...(method === 'POST' ? { body: JSON.stringify(body) } : {}),
        redirect: 'error',
        signal: AbortSignal.timeout(deps.waitMs ?? WAIT_MS),
      });
      status = response.status;
      text = await readLimited(response);
    } catch (error) {
      if (error instanceof Error && error.name === 'TimeoutError')
        throw new AppError('upstream-timeout', 'the legacy adapter does not answer in time', { cause: error, sent: 'maybe' });
      throw new AppError(
        'upstream-unreachable',
        `the legacy adapter does not answer at ${new URL(url).origin}; is \`banyan adapter\` running?`,
        {
          cause: error,
          retryable: true,
        },
      );
    }
    try {
      return { status, body: JSON.parse(text) };
    } catch (error) {
      throw new AppError('upstream-protocol', 'what answers at adapter.url does not speak as the legacy adapter does', { cause: error });
    }
  },
});
