import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { environment, findConfigFile, formatFault, loadConfig } from '../config.ts';
import { answerNo, cannot } from './exit.ts';

/** The flags that every command with a running gateway takes. */
export type AdminOptions = {
  /** `--admin URL`; default from the configuration, else http://127.0.0.1:8081. */
  readonly admin?: string | undefined;
  /** Default BANYAN_ADMIN_TOKEN. */
  readonly token?: string | undefined;
  /** `--token-file FILE`. */
  readonly tokenFile?: string | undefined;
  /** `--config FILE`, read for the address only. */
  readonly config?: string | undefined;
};

export type AdminClient = {
  /** Where it asks, without a trailing slash. */
  readonly url: string;
  /** Paths begin with `/` and stand below `/api/v1`. The answer's JSON, not validated. @throws Exit */
  readonly get: (path: string) => Promise<unknown>;
  readonly post: (path: string, body?: unknown) => Promise<unknown>;
  readonly put: (path: string, body: unknown) => Promise<unknown>;
};

/** Adds `--admin`, `--token-file` and `--config` to a command. */
export const withAdminOptions = (command: Command): Command =>
  command
    .option('--admin <url>', 'admin address of the gateway (default: the configuration’s, else http://127.0.0.1:8081)')
    .option('--token-file <file>', 'file that holds the admin token (default: BANYAN_ADMIN_TOKEN)')
    .option('--config <file>', 'configuration that names the admin address');

const DEFAULT_ADMIN = 'http://127.0.0.1:8081';
/** ms; the gateway itself answers a move at once (a flip with 202). */
const TIMEOUT = 15_000;

const addressOf = async (options: AdminOptions): Promise<string> => {
  if (options.admin !== undefined) {
    if (!/^https?:\/\/[^/?#\s]+\/?$/.test(options.admin) || !URL.canParse(options.admin))
      throw cannot(`--admin ${options.admin}: expected an address such as ${DEFAULT_ADMIN}`);
    return options.admin.replace(/\/$/, '');
  }
  const file = options.config ?? findConfigFile();
  if (file === undefined) return DEFAULT_ADMIN;
  // As `banyan dev` reads it: only the address is wanted here, and what is missing for a start is no concern of an operator's laptop.
  const loaded = await loadConfig({ file, dev: true });
  if (!loaded.ok) {
    if (options.config === undefined) return DEFAULT_ADMIN;
    throw cannot(`${loaded.faults[0] === undefined ? file : formatFault(loaded.faults[0])} (or use --admin URL)`);
  }
  const { host, port } = loaded.config.admin.listen;
  if (port === 0) throw cannot(`${file} lets the system choose the admin port; use --admin URL`);
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`;
};

const tokenOf = (options: AdminOptions): string | undefined => {
  if (options.tokenFile === undefined) return options.token ?? environment('BANYAN_ADMIN_TOKEN');
  try {
    return readFileSync(options.tokenFile, 'utf8').trim();
  } catch (error) {
    throw cannot(`--token-file ${options.tokenFile} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unreadable'})`);
  }
};

const causeOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return `no answer in ${TIMEOUT / 1_000} s`;
  const cause = error.cause as NodeJS.ErrnoException | undefined;
  return cause?.code ?? cause?.message ?? error.message;
};

const isProblem = (value: unknown): value is { readonly title?: string; readonly detail?: string; readonly code?: string } =>
  typeof value === 'object' && value !== null;

/** A client of the admin API. Nobody there, no such thing, wrong usage or no right = Exit 2; a refusal (409, 412, 422) = Exit 1 with the problem's detail. */
export const adminClient = async (options: AdminOptions): Promise<AdminClient> => {
  const url = await addressOf(options);
  const token = tokenOf(options);
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) throw cannot('the admin token holds characters that no header can carry');

  const ask = async (method: string, path: string, body?: unknown): Promise<unknown> => {
    let status: number;
    let text: string;
    try {
      const response = await fetch(`${url}/api/v1${path}`, {
        method,
        headers: {
          accept: 'application/json',
          ...(token === undefined || token === '' ? {} : { authorization: `Bearer ${token}` }),
          ...(method === 'GET' ? {} : { 'content-type': 'application/json' }),
        },
        ...(method === 'GET' ? {} : { body: JSON.stringify(body ?? {}) }),
        redirect: 'error',
        signal: AbortSignal.timeout(TIMEOUT),
      });
      status = response.status;
      text = await response.text();
    } catch (error) {
      throw cannot(`no gateway answers at ${url} (${causeOf(error)}); is it running, and is --admin right?`);
    }
    let answer: unknown;
    try {
      answer = text === '' ? null : JSON.parse(text);
    } catch {
      throw cannot(`${url} answers ${status}, but not as Banyan's admin API does`);
    }
    if (status >= 200 && status < 300) return answer;
    const problem = isProblem(answer) ? answer : {};
    const detail = (problem.detail ?? problem.title ?? `the gateway answered ${status}`).replaceAll(/[\x00-\x1f\x7f-\x9f]+/g, ' ');
    if (status === 409 || status === 412 || status === 422) throw answerNo(detail);
    if (status === 401 || status === 403) throw cannot(`${detail} (BANYAN_ADMIN_TOKEN or --token-file says who asks)`);
    throw cannot(detail);
  };

  return {
    url,
    get: (path) => ask('GET', path),
    post: (path, body) => ask('POST', path, body),
    put: (path, body) => ask('PUT', path, body),
  };
};
