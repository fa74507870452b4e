import { AppError } from '@banyan/contracts/errors.ts';
import type { z } from 'zod';
import type { Config } from '../config.ts';
import { askJson } from './json-client.ts';

/** Asks the extracted services (docs/interfaces.md) under the token that they share with the gateway. */
export type ServiceClient = {
  /** In the order of their names. */
  names(): readonly string[];
  /**
   * @throws AppError `not-configured` for a service that the configuration does not name; the service's own refusal under its code; `upstream-…` when it does not
   * answer, or not as expected. null = it has no such path
   */
  ask<T extends z.ZodType>(
    name: string,
    question: { method: 'GET' | 'POST'; path: string; body?: object },
    answer: T,
  ): Promise<z.output<T> | null>;
};

/** Replaying a key runs its handlers. */
const WAIT_MS = 20_000;
const WAIT_READ_MS = 5_000;

const detailOf = (body: unknown): { readonly code?: unknown; readonly detail?: unknown } =>
  typeof body === 'object' && body !== null ? body : {};

export const createServiceClient = (deps: { config: () => Config; token: string | null }): ServiceClient => {
  const urls = (): ReadonlyMap<string, string> => {
    const { contexts, services } = deps.config();
    const named = Object.entries(contexts).flatMap(([name, { extracted }]) => (extracted === null ? [] : [[name, extracted.url] as const]));
    return new Map([...named, ...Object.entries(services)]);
  };
  return {
    names: () => [...urls().keys()].sort(),
    async ask(name, { method, path, body }, answer) {
      const url = urls().get(name);
      if (url === undefined)
        throw new AppError(
          'not-configured',
          `no service is called ${JSON.stringify(name.slice(0, 100))}; \`services\` in the configuration says where they are`,
        );
      const reply = await askJson({
        method,
        url,
        path,
        token: deps.token,
        ...(body === undefined ? {} : { body }),
        waitMs: method === 'GET' ? WAIT_READ_MS : WAIT_MS,
        who: `the service ${name}`,
        hint: 'is it running?',
      });
      if (reply.status >= 200 && reply.status < 300) {
        const read = answer.safeParse(reply.body);
        if (read.success) return read.data as never;
        throw new AppError('upstream-protocol', `the service ${name} does not answer as a service on the kit does`, { cause: read.error });
      }
      const { code, detail } = detailOf(reply.body);
      const why = `${name}: ${typeof detail === 'string' ? detail.slice(0, 500) : `answered ${reply.status}`}`;
      if (reply.status === 401 || reply.status === 403)
        throw new AppError('not-configured', `${why} (gateway and services need the same BANYAN_SERVICE_TOKEN)`);
      if (reply.status === 404) {
        // a service of another make has no dead letters; one of ours says so in its own words
        if (code !== 'not-found' || (typeof detail === 'string' && detail.endsWith('has no such route'))) return null;
        throw new AppError('not-found', why);
      }
      if (reply.status === 409) throw new AppError('conflict', why);
      if (reply.status === 400) throw new AppError('bad-request', why);
      throw new AppError(reply.status === 503 ? 'upstream-unreachable' : 'upstream-protocol', why, { retryable: reply.status === 503 });
    },
  };
};
