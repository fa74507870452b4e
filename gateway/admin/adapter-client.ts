import { askJson, type JsonReply } from './json-client.ts';

/** Asks the adapter (docs/interfaces.md). Its own problems pass through with their status; nobody there is 502. */
export type AdapterClient = { ask(method: 'GET' | 'POST', path: string): Promise<JsonReply> };

/** Installing triggers and taking a snapshot look at whole tables. */
const WAIT_MS = 60_000;

export const createAdapterClient = (deps: { url: () => string; token: string | null; waitMs?: number }): AdapterClient => ({
  ask: (method, path) =>
    askJson({
      method,
      url: deps.url(),
      path,
      token: deps.token,
      waitMs: deps.waitMs ?? WAIT_MS,
      who: 'the legacy adapter',
      hint: 'is `banyan adapter` running?',
    }),
});
