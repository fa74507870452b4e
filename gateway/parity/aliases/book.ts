import { type Alias, type Aliases, createAliases } from '../../core/parity/aliases.ts';
import type { AliasStore, ContextAlias } from './store.ts';

export type AliasBookDeps = {
  /** null = what is learned stays in this process. */
  readonly store: AliasStore | null;
  /** Does this context learn aliases? */
  readonly wanted: (context: string) => boolean;
  /** Does any? Else the store is left alone. */
  readonly anyWanted: () => boolean;
  /** Member names, in lower case, that the configuration redacts. */
  readonly redacted: () => ReadonlySet<string>;
  /** Told once when the store fails and once when it works again. */
  readonly onStore?: (failing: boolean, error?: unknown) => void;
  /** Between two exchanges with the store. Default 1,000. */
  readonly exchangeMs?: number;
};

/** What all gateways know of ids that both sides mint. */
export type AliasBook = {
  /** undefined = this context has none. */
  readonly of: (context: string) => Aliases | undefined;
  /** Hands on what was learned. Never throws, never waits. */
  readonly learned: (context: string, aliases: readonly Alias[]) => void;
  /** Brings what others have learned, and hands on what was learned here. Resolves also when the store fails. */
  readonly exchange: () => Promise<void>;
  readonly start: () => void;
  readonly stop: () => Promise<void>;
};

/** Learned and not yet stored; beyond it they stay in this process. */
const MAX_FRESH = 5_000;
const PRUNE_EVERY = 1_000;
/** What gives access is nobody's id. */
const CREDENTIAL = /(?:key|token|secret|password|session)s?$/i;

export const createAliasBook = (deps: AliasBookDeps): AliasBook => {
  const { store } = deps;
  const books = new Map<string, Aliases>();
  let fresh: ContextAlias[] = [];
  let mark: string | null = null;
  let added = 0;
  let failing = false;
  let running: Promise<void> | null = null;
  let timer: NodeJS.Timeout | undefined;

  const secret = (name: string): boolean => CREDENTIAL.test(name) || deps.redacted().has(name.toLowerCase());
  const bookOf = (context: string): Aliases => {
    const known = books.get(context) ?? createAliases(secret);
    books.set(context, known);
    return known;
  };

  const trade = async (from: AliasStore): Promise<void> => {
    const mine = fresh;
    fresh = [];
    try {
      if (mine.length > 0) await from.add(mine);
      const news = await from.since(mark);
      for (const { context, ...alias } of news.aliases) if (deps.wanted(context)) bookOf(context).remember(alias);
      mark = news.mark;
      added += mine.length;
      if (added >= PRUNE_EVERY) {
        added = 0;
        for (const context of books.keys()) await from.prune(context);
      }
      if (failing) deps.onStore?.(false);
      failing = false;
    } catch (error) {
      // adding twice is harmless
      fresh = [...mine, ...fresh].slice(0, MAX_FRESH);
      if (!failing) deps.onStore?.(true, error);
      failing = true;
    }
  };
  const exchange = async (): Promise<void> => {
    if (store === null || !deps.anyWanted()) return;
    while (running) await running;
    running = trade(store).finally(() => {
      running = null;
    });
    await running;
  };

  return {
    of: (context) => (deps.wanted(context) ? bookOf(context) : undefined),
    learned: (context, aliases) => {
      if (store === null) return;
      for (const alias of aliases) if (fresh.length < MAX_FRESH) fresh.push({ ...alias, context });
    },
    exchange,
    start: () => {
      if (store === null) return;
      void exchange();
      timer = setInterval(() => {
        if (running === null) void exchange();
      }, deps.exchangeMs ?? 1_000);
      timer.unref();
    },
    stop: async () => {
      clearInterval(timer);
      await (fresh.length > 0 ? exchange() : running);
    },
  };
};
