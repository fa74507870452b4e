import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { z } from 'zod';

/** Shares of the calls, 0..1: answered 500 before or after the charge is made, not answered, answered late by `lateMs`, refused. */
export type Moods = {
  readonly fail: number;
  readonly failAfter: number;
  readonly hang: number;
  readonly late: number;
  readonly lateMs: number;
  readonly refuse: number;
};
export const CALM: Moods = { fail: 0, failAfter: 0, hang: 0, late: 0, lateMs: 1000, refuse: 0 };

type Charge = { readonly key: string; readonly amount: number; state: 'charged' | 'refused' | 'refunded' | 'void' };

export type Provider = {
  readonly url: string;
  readonly charges: () => readonly Readonly<Charge>[];
  readonly setMoods: (moods: Partial<Moods>) => void;
  readonly stop: () => Promise<void>;
};

const body = z.object({ amount: z.number().min(0).max(1e9), currency: z.string().length(3) });
const MAX_BODY = 16 * 1024;
/** Charges kept; the oldest go first. */
const MAX_CHARGES = 100_000;

const read = async (req: IncomingMessage): Promise<unknown> => {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of req as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY) throw new RangeError('too large');
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString());
};

/**
 * A card provider as services meet them: `PUT /charges/KEY {amount, currency}` charges once per key, `GET /charges/KEY` says what became of it,
 * `POST /charges/KEY/refund` gives it back, also before it was made: then it never will be. It can fail, hang and answer late.
 */
export const startProvider = async (options: { port?: number; moods?: Partial<Moods>; random?: () => number } = {}): Promise<Provider> => {
  const { random = Math.random } = options;
  let moods: Moods = { ...CALM, ...options.moods };
  const charges = new Map<string, Charge>();
  const timers = new Set<NodeJS.Timeout>();
  const answer = (res: ServerResponse, status: number, value: object): void => {
    if (!res.destroyed) res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  };
  const keep = (charge: Charge): Charge => {
    charges.set(charge.key, charge);
    if (charges.size > MAX_CHARGES) charges.delete(charges.keys().next().value!);
    return charge;
  };

  const handle = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const [, key = '', refund] = /^\/charges\/([\w-]{1,128})(\/refund)?$/.exec(req.url ?? '') ?? [];
    if (key === '') return answer(res, 404, { error: 'not found' });
    if (req.method === 'GET') {
      const found = charges.get(key);
      return found ? answer(res, 200, found) : answer(res, 404, { error: 'no such charge' });
    }
    const wish = req.method === 'PUT' ? body.safeParse(await read(req)) : null;
    if (wish && !wish.success) return answer(res, 400, { error: 'amount and currency, please' });
    const dice = random();
    let at = 0;
    const falls = (share: number): boolean => {
      at += share;
      return dice >= at - share && dice < at;
    };
    if (falls(moods.fail)) return answer(res, 500, { error: 'failed' });
    const hang = falls(moods.hang);
    const failAfter = falls(moods.failAfter);
    const late = falls(moods.late);
    let charge = charges.get(key);
    if (wish?.data) charge ??= keep({ key, amount: wish.data.amount, state: random() < moods.refuse ? 'refused' : 'charged' });
    else if (refund !== undefined) {
      charge ??= keep({ key, amount: 0, state: 'void' });
      if (charge.state === 'charged') charge.state = 'refunded';
    } else return answer(res, 405, { error: 'PUT, GET or POST …/refund' });
    if (hang) return;
    if (failAfter) return answer(res, 500, { error: 'failed after all' });
    const value = { ...charge };
    if (!late) return answer(res, 200, value);
    const timer = setTimeout(() => {
      timers.delete(timer);
      answer(res, 200, value);
    }, moods.lateMs);
    timers.add(timer);
  };

  const server = createServer({ requestTimeout: 30_000 }, (req, res) => {
    handle(req, res).catch(() => answer(res, 400, { error: 'not understood' }));
  });
  server.listen(options.port ?? 0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    charges: () => [...charges.values()],
    setMoods: (wanted) => {
      moods = { ...moods, ...wanted };
    },
    stop: async () => {
      for (const timer of timers) clearTimeout(timer);
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
};
