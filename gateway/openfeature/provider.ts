import { AppError } from '@banyan/contracts/errors.ts';
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OpenFeature, type Provider as OpenFeatureProvider } from '@openfeature/server-sdk';
import { bucketOf } from '../core/bucket.ts';
import { Lru } from '../core/lru.ts';

export type ProviderSettings = {
  /** `ofrep`, or a function that makes a provider. */
  readonly provider: 'ofrep' | (() => object);
  readonly url: string | null;
  readonly token: string | null;
  readonly timeoutMs: number;
  readonly cacheMs: number;
  readonly entries: number;
};

/** What the provider said: `TARGETING` about this client, `PROVIDER` about the share, or that it said nothing and legacy answers. */
export type Provided = { readonly extracted: boolean; readonly reason: 'TARGETING' | 'PROVIDER' };

export type ProviderOutcome = 'answered' | 'failed' | 'late';

/** Asks an OpenFeature provider beside the requests, and remembers what it said. */
export type Provider = {
  /** A promise only for a key that nobody asked about yet, and then for at most `timeoutMs`. Never rejects. */
  decide(
    context: string,
    salt: string,
    about: { readonly flag: string; readonly decides: 'upstream' | 'share' },
    stickyKey: string,
  ): Provided | Promise<Provided>;
  stop(): Promise<void>;
};

/** Evaluations under way at one time. */
const MAX_ASKED = 256;
/** After a failure, ms during which nobody waits for the provider. */
const DOWN_MS = 1_000;
/** An evaluation that takes longer is given up, ms. */
const EVALUATION_MS = 5_000;

const NOTHING: Provided = { extracted: false, reason: 'PROVIDER' };

/** `true` = extracted answers everybody that has this; a number is a share in percent. */
type Value = boolean | number;
type Known = { readonly value: Value | null; readonly at: number };

let instances = 0;

/** Closes whatever was registered under the domain: the SDK has no call that takes a single one away. */
const NO_PROVIDER = (): OpenFeatureProvider => {
  const none = async () => {
    throw new Error('the gateway has stopped');
  };
  return {
    metadata: { name: 'none' },
    resolveBooleanEvaluation: none,
    resolveNumberEvaluation: none,
    resolveObjectEvaluation: none,
    resolveStringEvaluation: none,
  };
};

// the SDK would write to the console
const SILENT = { error: () => undefined, warn: () => undefined, info: () => undefined, debug: () => undefined };

const make = ({ provider, url, token }: ProviderSettings): OpenFeatureProvider => {
  if (provider === 'ofrep')
    return new OFREPProvider({
      baseUrl: url ?? '',
      ...(token === null ? {} : { headers: [['Authorization', `Bearer ${token}`]] }),
      fetchImplementation: (input: string | URL | Request, init?: RequestInit) =>
        fetch(input, { ...init, signal: AbortSignal.timeout(EVALUATION_MS) }),
    });
  let made: Partial<OpenFeatureProvider> | null = null;
  try {
    made = provider();
  } catch (cause) {
    throw new AppError('not-configured', `openfeature.provider: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  if (typeof made?.resolveStringEvaluation !== 'function' || typeof made.resolveNumberEvaluation !== 'function')
    throw new AppError('not-configured', 'openfeature.provider: the function gave no OpenFeature provider for servers');
  return made as OpenFeatureProvider;
};

/** @param now monotonic ms; `onTrouble` hears of the first failure after an answer. @throws AppError `not-configured` when no provider comes of the settings */
export const createProvider = (
  settings: ProviderSettings,
  deps: { readonly now: () => number; readonly count: (outcome: ProviderOutcome) => void; readonly onTrouble: (flag: string) => void },
): Provider => {
  const { now, count, onTrouble } = deps;
  const domain = `banyan-${++instances}`;
  const made = make(settings);
  OpenFeature.setProvider(domain, made);
  const client = OpenFeature.getClient(domain).setLogger(SILENT);
  let failing = false;
  const known = new Lru<Known>(settings.entries);
  const asked = new Map<string, Promise<Value | null>>();
  const waiting = new Set<() => void>();
  let downUntil = Number.NEGATIVE_INFINITY;

  const evaluate = async (flag: string, decides: 'upstream' | 'share', context: string, targetingKey: string): Promise<Value | null> => {
    if (decides === 'share') {
      const { value, errorCode } = await client.getNumberDetails(flag, -1, { targetingKey, context });
      return errorCode === undefined && value >= 0 && value <= 100 ? value : null;
    }
    const { value, errorCode } = await client.getStringDetails(flag, '', { targetingKey, context });
    return errorCode === undefined && (value === 'legacy' || value === 'extracted') ? value === 'extracted' : null;
  };

  /** undefined after `ms`, or when the gateway stops; the evaluation itself goes on. */
  const within = async (value: Promise<Value | null>, ms: number): Promise<Value | null | undefined> => {
    let giveUp: () => void = () => undefined;
    const late = new Promise<undefined>((resolve) => {
      giveUp = () => resolve(undefined);
    });
    const timer = setTimeout(giveUp, ms);
    waiting.add(giveUp);
    try {
      return await Promise.race([value, late]);
    } finally {
      clearTimeout(timer);
      waiting.delete(giveUp);
    }
  };

  const ask = (id: string, flag: string, decides: 'upstream' | 'share', context: string, key: string): Promise<Value | null> | null => {
    const under = asked.get(id);
    if (under) return under;
    if (asked.size >= MAX_ASKED) return null;
    const answer = within(evaluate(flag, decides, context, key), EVALUATION_MS)
      .catch(() => null)
      .then((value) => {
        asked.delete(id);
        if (value === undefined || value === null) {
          count('failed');
          if (!failing) onTrouble(flag);
          failing = true;
          downUntil = now() + DOWN_MS;
          // what was known stays known; asked again after a while
          known.set(id, { value: known.get(id)?.value ?? null, at: now() - settings.cacheMs + Math.min(DOWN_MS, settings.cacheMs) });
          return known.get(id)?.value ?? null;
        }
        count('answered');
        failing = false;
        known.set(id, { value, at: now() });
        return value;
      });
    asked.set(id, answer);
    return answer;
  };

  return {
    decide(context, salt, { flag, decides }, stickyKey) {
      const targetingKey = decides === 'share' ? context : stickyKey;
      const id = `${flag}\n${context}\n${targetingKey}`;
      const said = (value: Value | null | undefined): Provided => {
        if (typeof value === 'number') return { extracted: bucketOf(salt, stickyKey) < Math.round(value * 100), reason: 'PROVIDER' };
        return typeof value === 'boolean' ? { extracted: value, reason: 'TARGETING' } : NOTHING;
      };
      const entry = known.get(id);
      if (entry) {
        if (now() - entry.at >= settings.cacheMs) void ask(id, flag, decides, context, targetingKey);
        return said(entry.value);
      }
      const answer = ask(id, flag, decides, context, targetingKey);
      if (answer === null || now() < downUntil) return NOTHING;
      return within(answer, settings.timeoutMs).then((value) => {
        if (value === undefined) count('late');
        return said(value);
      });
    },
    async stop() {
      OpenFeature.setProvider(domain, NO_PROVIDER());
      for (const giveUp of waiting) giveUp();
      await Promise.allSettled(asked.values());
    },
  };
};
