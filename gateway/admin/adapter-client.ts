import { askJson, type JsonReply } from './json-client.ts';

/** Asks the adapter (docs/interfaces.md). Its own problems pass through with their status; nobody there is 502. */
export type AdapterClient = {
  /** @param body of a POST; default `{}` */
  ask(method: 'GET' | 'POST', path: string, body?: object): Promise<JsonReply>;
};

/** Installing triggers and taking a snapshot look at whole tables. */
const WAIT_MS = 60_000;

export const createAdapterClient = (deps: { url: () => string; token: string | null; waitMs?: number }): AdapterClient => ({
  ask: (method, path, body = {}) =>
    askJson({
      method,
      url: deps.url(),
      path,
      token: deps.token,
      body,
      waitMs: deps.waitMs ?? WAIT_MS,
      who: 'the legacy adapter',
      hint: 'is `banyan adapter` running?',
    }),
});
