import { AppError } from '@banyan/contracts/errors.ts';

export type JsonReply = { readonly status: number; readonly body: unknown };

export type JsonQuestion = {
  readonly method: 'GET' | 'POST';
  readonly url: string;
  readonly path: string;
  readonly token: string | null;
  /** Of a POST. */
  readonly body?: object;
  readonly waitMs: number;
  /** Who is asked, as in "the legacy adapter does not answer", and what to look at when nobody is there. */
  readonly who: string;
  readonly hint: string;
};

/** More than any answer needs. */
const MAX_ANSWER = 4 * 1_048_576;

const readLimited = async (response: Response): Promise<string> => {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > MAX_ANSWER) throw new Error('the answer is larger than 4 MiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
};

/** Asks another process of Banyan's; its own problems come back with their status. @throws AppError `upstream-timeout`, `upstream-unreachable`, `upstream-protocol` */
export const askJson = async (question: JsonQuestion): Promise<JsonReply> => {
  const { method, url, path, token, who, hint } = question;
  let status: number;
  let text: string;
  try {
    const response = await fetch(new URL(path, url), {
      method,
      headers: {
        accept: 'application/json',
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
        ...(method === 'POST' ? { 'content-type': 'application/json' } : {}),
      },
      ...(method === 'POST' ? { body: JSON.stringify(question.body ?? {}) } : {}),
      redirect: 'error',
      signal: AbortSignal.timeout(question.waitMs),
    });
    status = response.status;
    text = await readLimited(response);
  } catch (error) {
    if (error instanceof Error && error.name === 'TimeoutError')
      throw new AppError('upstream-timeout', `${who} does not answer in time`, { cause: error, sent: 'maybe' });
    throw new AppError('upstream-unreachable', `${who} does not answer at ${new URL(url).origin}; ${hint}`, {
      cause: error,
      retryable: true,
    });
  }
  try {
    return { status, body: JSON.parse(text) };
  } catch (error) {
    throw new AppError('upstream-protocol', `what answers at ${new URL(url).origin} does not speak as ${who} does`, { cause: error });
  }
};
