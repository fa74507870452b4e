import { Agent, request } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { randomOf } from './random.ts';

/** What a client knows of a command at the end: the final answer, or that it gave up. */
export type Told = {
  readonly key: string;
  readonly status: number;
  readonly id: string | null;
  readonly attempts: number;
  /** When it began, and how long it took to its final answer; ms of this process's clock. */
  readonly at: number;
  readonly ms: number;
  readonly last?: string;
};

type Command = { readonly key: string; readonly method: string; readonly path: string };

const send = (agent: Agent, base: string, command: Command, client: string): Promise<{ status: number; body: string }> =>
  new Promise((resolve, reject) => {
    const req = request(
      `${base}${command.path}`,
      {
        method: command.method,
        agent,
        timeout: 20_000,
        headers: { 'idempotency-key': command.key, authorization: `Bearer ${client}`, 'content-type': 'application/json' },
      },
      (res) => {
        let body = '';
        res.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        res.once('end', () => resolve({ status: res.statusCode ?? 0, body }));
        res.once('error', reject);
      },
    );
    req.once('timeout', () => req.destroy(new Error('no answer in 20 s')));
    req.once('error', reject);
    req.end(JSON.stringify({ for: command.path }));
  });

const idIn = (body: string): string | null => {
  try {
    const parsed = JSON.parse(body) as { id?: unknown; ref?: unknown };
    return typeof parsed.id === 'string' && parsed.ref !== undefined ? parsed.id : null;
  } catch {
    return null;
  }
};

export type ClientsOptions = {
  readonly seed: number;
  /** Base URLs; every attempt goes to the next one. */
  readonly urls: readonly string[];
  readonly perSecond: number;
  /** That the answer is lost is final: nobody can be asked for it. */
  readonly keyless?: boolean;
  /** Never repeat a key. */
  readonly once: boolean;
  /** How many of each existing thing there are. */
  readonly subjects: number;
  /** Of every kind of command: its share. */
  readonly shares: { readonly orders: number; readonly entries: number; readonly rushes: number };
};

export type Clients = {
  /** Begins nothing more; resolves when every command has its final answer. @param graceMs then those still without one give up */
  readonly finish: (graceMs: number) => Promise<readonly Told[]>;
  readonly begun: () => number;
};

/** Not applied, and its tentative fact taken back: that is final, a repeat needs a new key. */
const PARKED = /"state":"parked"/;
const TAKEN_BACK = /"state":"compensat/;

/** Careful clients: they repeat their key until somebody gives a final answer. 202 and 5xx are none, nor what a gateway refuses of its own. */
export const startClients = (options: ClientsOptions): Clients => {
  const random = randomOf(options.seed);
  const agent = new Agent({ keepAlive: true, maxSockets: 500 });
  const told: Promise<Told>[] = [];
  let stopped = false;
  let late = false;
  let n = 0;

  const next = (): Command => {
    n += 1;
    const key = `${options.seed}-${n}`;
    const dice = random();
    const subject = Math.floor(random() * options.subjects);
    if (dice < options.shares.orders) return { key, method: 'POST', path: '/api/orders' };
    if (dice < options.shares.orders + options.shares.entries) return { key, method: 'POST', path: `/api/accounts/a${subject}/entries` };
    if (dice < options.shares.orders + options.shares.entries + options.shares.rushes) return { key, method: 'POST', path: '/api/rushes' };
    return { key, method: 'PUT', path: `/api/notes/n${subject}` };
  };
  const surely = async (command: Command, at: number): Promise<Told> => {
    let last = '';
    const began = performance.now();
    const took = () => ({ at: began, ms: performance.now() - began });
    for (let attempts = 1; ; attempts++) {
      try {
        const { status, body } = await send(agent, options.urls[(at + attempts) % options.urls.length]!, command, `client-${at % 20}`);
        const answered = status >= 200 && status < 300 && status !== 202;
        const refused =
          status >= 400 &&
          status < 500 &&
          (!body.includes('"code"') || TAKEN_BACK.test(body) || (options.keyless === true && body.includes('"answer-lost"')));
        last = `${status} ${body.slice(0, 200)}`;
        // nobody knows, and a person will tell: a careful client asks by other means
        if (status === 202 && PARKED.test(body)) return { key: command.key, status, id: null, attempts, ...took() };
        if (answered || refused) return { key: command.key, status, id: idIn(body), attempts, ...took() };
      } catch (error) {
        // refused, reset or silent: the next attempt may find somebody
        last = String(error);
      }
      if (late || options.once) return { key: command.key, status: 0, id: null, attempts, ...took(), last };
      await pause(Math.min(1_000, 30 * 2 ** Math.min(attempts, 5)) * (0.5 + Math.random()));
    }
  };
  const begin = (async () => {
    const start = performance.now();
    while (!stopped) {
      const due = ((performance.now() - start) / 1000) * options.perSecond;
      while (told.length < due) told.push(surely(next(), told.length));
      await pause(5);
    }
  })();
  return {
    begun: () => told.length,
    async finish(graceMs) {
      stopped = true;
      await begin;
      const timer = setTimeout(() => {
        late = true;
      }, graceMs);
      const all = await Promise.all(told);
      clearTimeout(timer);
      agent.destroy();
      return all;
    },
  };
};
