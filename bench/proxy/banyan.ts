import { mkdirSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, type Workshop } from '../processes.ts';
import type { Server } from './servers.ts';

/** Contexts and routes in each of them, as in DESIGN.md section 11. */
export const CONTEXTS = 200;
export const ROUTES = 50;

/** The paths that are asked for, in turn: every one of the 10,000 routes once. One list for every proxy. */
export const paths = (): string[] =>
  Array.from({ length: CONTEXTS * ROUTES }, (_, i) => `/api/c${i % CONTEXTS}/r${Math.floor(i / CONTEXTS)}/${(i * 7919) % 100_000}`);

type Context = { readonly match: readonly object[]; readonly [key: string]: unknown };

/** One context that owns every path by one route. */
export const oneRoute = (): Record<string, Context> => ({
  one: { else: 'legacy', match: [{ path: '/api/:context/:route/:id', methods: ['GET', 'HEAD'] }] },
});

/** 200 contexts with 50 routes each. */
export const manyRoutes = (): Record<string, Context> =>
  Object.fromEntries(
    Array.from({ length: CONTEXTS }, (_, c) => [
      `c${c}`,
      { else: 'legacy', match: Array.from({ length: ROUTES }, (__, r) => ({ path: `/api/c${c}/r${r}/:id`, methods: ['GET', 'HEAD'] })) },
    ]),
  );

/** One route whose every query is mirrored and compared; nothing but the bounds of the shadow path holds it back. */
export const shadowed = (extracted: string): Record<string, Context> => ({
  one: {
    ...oneRoute().one!,
    stage: 'shadow',
    extracted: { url: extracted },
    shadow: { maxPerSecond: 1_000_000, concurrency: 100 },
    parity: { sample: '100%', compare: '100%' },
  },
});

export type BanyanOptions = {
  /** Names its folder. */
  readonly name: string;
  readonly legacy: string;
  /** Absent = a plain proxy, `--legacy` and no file. */
  readonly contexts?: Readonly<Record<string, Context>>;
  /** Client connections at once. */
  readonly maxConnections?: number;
  /** Another checkout to run, instead of this one. */
  readonly checkout?: string | undefined;
  /** Collections go to the log (`heap-trace.ts`). */
  readonly traceHeap?: boolean;
};

const HEAP_TRACE = join(import.meta.dirname, 'heap-trace.ts');

export type Banyan = Server & { readonly admin: string; readonly log: string };

/** `banyan run` with its default log, which goes to a file as it would in production. */
export const startBanyan = async (shop: Workshop, options: BanyanOptions): Promise<Banyan> => {
  const folder = join(shop.folder, options.name);
  mkdirSync(folder);
  const listen = ['--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
  let args = ['run', '--legacy', options.legacy, ...listen];
  const { contexts, maxConnections } = options;
  if (contexts !== undefined || maxConnections !== undefined) {
    const file = join(folder, 'banyan.yaml');
    // JSON is YAML
    writeFileSync(
      file,
      JSON.stringify({
        version: 1,
        legacy: { url: options.legacy },
        contexts,
        ...(maxConnections === undefined ? {} : { client: { maxConnections } }),
      }),
    );
    args = ['run', '--config', file, ...listen];
  }
  const log = join(folder, 'log');
  const { urls, pid, stop } = await shop.startNode(join(options.checkout ?? ROOT, 'gateway/bin/banyan.js'), args, {
    stdout: openSync(log, 'w'),
    cwd: folder,
    imports: options.traceHeap ? [HEAP_TRACE] : [],
  });
  return { url: urls.gateway!, admin: urls.admin!, pid, log, stop };
};
