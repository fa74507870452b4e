import { createRouteNamer, labelOfTemplate, type RouteNamer, type TemplateRule } from '../core/parity/route-names.ts';
import type { EvidenceStore } from './evidence.ts';

export type RouteNamesDeps = {
  readonly store: Pick<EvidenceStore, 'templates' | 'learnTemplate'>;
  /** Labels of the configured routes of a context. */
  readonly labels: (context: string) => readonly string[];
  /** Told once when the store fails and once when it works again. */
  readonly onStore?: (failing: boolean, error?: unknown) => void;
  /** Between two exchanges with the store. Default 5,000. */
  readonly exchangeMs?: number;
};

/** Names routes by templates that all gateways over one store agree on. */
export type RouteNames = {
  /** Pure memory. */
  readonly name: (context: string, label: string, target: string) => string;
  /** Hands on what was found here, brings what others have found. Resolves also when the store fails. */
  readonly exchange: () => Promise<void>;
  readonly start: () => void;
  readonly stop: () => Promise<void>;
};

/** Rules found and not yet stored. */
const MAX_FRESH = 1_000;

export const createRouteNames = (deps: RouteNamesDeps): RouteNames => {
  const namers = new Map<string, RouteNamer>();
  let fresh: { readonly context: string; readonly rule: TemplateRule }[] = [];
  let failing = false;
  let running: Promise<void> | null = null;
  let timer: NodeJS.Timeout | undefined;

  const namerOf = (context: string): RouteNamer => {
    const known = namers.get(context) ?? createRouteNamer();
    namers.set(context, known);
    return known;
  };
  const gather = (): void => {
    for (const [context, namer] of namers) fresh.push(...namer.found().map((rule) => ({ context, rule })));
    fresh = fresh.slice(0, MAX_FRESH);
  };
  const trade = async (): Promise<void> => {
    try {
      gather();
      while (fresh.length > 0) {
        const { context, rule } = fresh[0]!;
        await deps.store.learnTemplate(context, rule);
        fresh.shift();
      }
      const { rules, routes } = await deps.store.templates();
      for (const { context, ...rule } of rules) if (deps.labels(context).length > 0) namerOf(context).learn(rule);
      for (const { context, route } of routes) {
        const label = labelOfTemplate(route, deps.labels(context));
        if (label !== undefined) namerOf(context).seen(label, route);
      }
      if (failing) deps.onStore?.(false);
      failing = false;
    } catch (error) {
      if (!failing) deps.onStore?.(true, error);
      failing = true;
    }
  };
  const exchange = async (): Promise<void> => {
    while (running) await running;
    running = trade().finally(() => {
      running = null;
    });
    await running;
  };

  return {
    name: (context, label, target) => namerOf(context).name(label, target),
    exchange,
    start: () => {
      void exchange();
      timer = setInterval(() => {
        if (running === null) void exchange();
      }, deps.exchangeMs ?? 5_000);
      timer.unref();
    },
    stop: async () => {
      clearInterval(timer);
      await running;
      gather();
      if (fresh.length > 0) await exchange();
    },
  };
};
