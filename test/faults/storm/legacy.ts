import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { randomOf } from './random.ts';

/** What a command did, once and for all. `n` counts the effects of the whole monolith. */
export type Effect = { readonly key: string; readonly kind: Kind; readonly subject: string; readonly n: number };
export type Kind = 'order' | 'entry' | 'note' | 'rush';

export type Shares = { readonly failBefore: number; readonly failAfter: number; readonly hangAfter: number; readonly refuse: number };

export type Legacy = {
  readonly url: string;
  readonly effects: ReadonlyMap<string, Effect>;
  /** Effects in their order: what an adapter would capture. */
  readonly changes: readonly Effect[];
  /** Requests that came for a key that had its effect already. */
  readonly repeats: () => number;
  /** Effects that a key had more than once. */
  readonly doubles: () => number;
  /** Rushes whose event cannot be built: those taken back once, and those not, or twice. */
  readonly takenBack: () => number;
  readonly notTakenBack: () => number;
  /** No more faults. */
  readonly calm: () => void;
  readonly stop: () => Promise<void>;
};

const ROUTES: readonly (readonly [string, RegExp, Kind])[] = [
  ['POST', /^\/api\/orders$/, 'order'],
  ['POST', /^\/api\/accounts\/([^/]+)\/entries$/, 'entry'],
  ['POST', /^\/api\/rushes$/, 'rush'],
  ['PUT', /^\/api\/notes\/([^/]+)$/, 'note'],
];

/**
 * A monolith that honours Idempotency-Key and fails as asked: before the effect, after it, or it has the effect and never answers. The truth that a storm's
 * facts are held against.
 */
export const startLegacy = async (seed: number, shares: Shares, keyless = false): Promise<Legacy> => {
  const random = randomOf(seed);
  const effects = new Map<string, Effect>();
  const refused = new Set<string>();
  const changes: Effect[] = [];
  /** By the key of the rush: under which keys it was taken back, and how often it was there when it was asked for. */
  const undone = new Map<string, Set<string>>();
  let doubles = 0;
  let faults = true;
  let repeats = 0;

  const answer = (res: ServerResponse, status: number, body: unknown): void => {
    res.writeHead(status, { 'content-type': 'application/json' }).end(status === 204 ? undefined : JSON.stringify(body));
  };
  const apply = (key: string, kind: Kind, subject: string | undefined): Effect => {
    const known = effects.get(key);
    if (known) repeats += 1;
    if (known && keyless) doubles += 1;
    if (known) return known;
    const n = changes.length + 1;
    const effect = { key, kind, subject: subject ?? `${kind}-${n}`, n };
    effects.set(key, effect);
    changes.push(effect);
    return effect;
  };
  const rushes = (): Effect[] => changes.filter(({ kind }) => kind === 'rush');
  const takenBack = (): number => rushes().filter(({ key }) => undone.get(key)?.size === 1).length;
  const view = (effect: Effect) => ({ ...(effect.kind === 'rush' ? {} : { id: effect.subject }), n: effect.n, ref: effect.key });

  /** Fails as commands do, and does it once for a key. */
  const takeBack = (res: ServerResponse, ref: string, key: string): void => {
    const { failBefore, failAfter, hangAfter } = shares;
    const dice = faults ? random() : 0.5;
    if (dice < failBefore) answer(res, 500, { error: 'before' });
    else if (effects.get(ref)?.kind !== 'rush') answer(res, 404, {});
    else {
      undone.set(ref, (undone.get(ref) ?? new Set()).add(key));
      if (dice < failBefore + failAfter) answer(res, 500, { error: 'after' });
      else if (dice >= failBefore + failAfter + hangAfter) answer(res, 204, {});
    }
  };

  const command = (res: ServerResponse, key: string, kind: Kind, subject: string | undefined): void => {
    const { failBefore, failAfter, hangAfter, refuse } = shares;
    const dice = faults ? random() : 0.5;
    if (dice < failBefore) answer(res, 500, { error: 'before' });
    else if (refused.has(key) || (!effects.has(key) && dice >= 1 - refuse)) {
      refused.add(key);
      answer(res, 409, { error: 'refused' });
    } else {
      const effect = apply(key, kind, subject);
      if (dice < failBefore + failAfter) answer(res, 500, { error: 'after' });
      else if (dice >= failBefore + failAfter + hangAfter) answer(res, 201, view(effect));
    }
  };

  const handle = (req: IncomingMessage, res: ServerResponse): void => {
    const { pathname, searchParams } = new URL(req.url ?? '/', 'http://legacy');
    if (req.method === 'GET') {
      const found = effects.get(searchParams.get('ref') ?? '');
      answer(res, 200, found ? [view(found)] : []);
      return;
    }
    if (req.method === 'DELETE') {
      takeBack(res, decodeURIComponent(pathname.split('/').at(-1)!), String(req.headers['idempotency-key'] ?? ''));
      return;
    }
    const route = ROUTES.find(([method, pattern]) => req.method === method && pattern.test(pathname));
    if (!route) answer(res, 404, {});
    else command(res, String(req.headers['idempotency-key'] ?? ''), route[2], route[1].exec(pathname)![1]);
  };
  const server = createServer((req, res) => {
    req.resume().once('end', () => handle(req, res));
    res.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    effects,
    changes,
    repeats: () => repeats,
    doubles: () => doubles,
    takenBack,
    notTakenBack: () => rushes().length - takenBack(),
    calm: () => {
      faults = false;
    },
    stop: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
};
