import type { Logger } from 'pino';
import type { Config } from './config.ts';
import type { Live } from './exchange.ts';
import { identityKey } from './identity/keys.ts';
import { createOverrideTokens } from './identity/override-token.ts';
import { unverifiedTokens, verifiedTokens } from './identity/tokens.ts';
import { createWhoami, type WhoamiOutcome } from './identity/whoami.ts';
import { createProvider, type ProviderOutcome } from './openfeature/provider.ts';
import { askUpstream } from './proxy/ask.ts';
import type { Upstream } from './proxy/upstream.ts';

export type AskersDeps = {
  /** From which the key of `identity` is derived; the same on all replicas. */
  readonly secret: string;
  readonly count: {
    readonly identity: (outcome: WhoamiOutcome) => void;
    readonly provider: (outcome: ProviderOutcome) => void;
  };
  readonly log: Pick<Logger, 'warn'>;
};

/** Largest answer of `identity.from`, bytes. */
const WHOAMI_LIMIT = 16_384;

const made = new WeakMap<object, number>();
let count = 0;

/** A function that an unchanged file exports is the same function: the provider it made stays. */
const idOf = (provider: 'ofrep' | (() => object)): string | number => {
  if (typeof provider === 'string') return provider;
  const id = made.get(provider) ?? ++count;
  made.set(provider, id);
  return id;
};

/** Everything that finds out who asks and who decides, of one configuration. */
export type Askers = Pick<Live, 'strip' | 'tokens' | 'overrideTokens' | 'whoami' | 'provider'>;

/**
 * `keep` gives what the configuration before had under the same settings, with what it remembers.
 * @throws AppError `not-configured` for keys that cannot be used
 */
export type AskersOf = (config: Config, legacy: Upstream, keep: <T>(name: string, settings: unknown, create: () => T) => T) => Askers;

export const createAskers =
  (deps: AskersDeps): AskersOf =>
  ({ jwt, overrideToken, identity, openfeature, legacy: settings }, legacy, keep) => {
    const now = (): number => Date.now();
    return {
      strip: identity?.as.header ?? null,
      tokens: {
        header: jwt?.header ?? 'authorization',
        reader: keep('tokens', jwt, () => (jwt === null ? unverifiedTokens() : verifiedTokens(jwt, now))),
      },
      overrideTokens:
        overrideToken?.key == null ? null : keep('override', overrideToken.key, () => createOverrideTokens(overrideToken.key!, now)),
      whoami:
        identity === null
          ? null
          : keep('identity', [identity, settings], () =>
              createWhoami({
                ask: (credentials) =>
                  askUpstream(legacy, {
                    path: identity.from.path,
                    headers: credentials,
                    limitBytes: WHOAMI_LIMIT,
                    timeoutMs: identity.timeout,
                  }),
                cacheMs: identity.cache,
                key: identityKey(identity.key, deps.secret),
                count: deps.count.identity,
                onTrouble: (err) => deps.log.warn({ err }, 'legacy does not say who is logged in: services get no identity'),
                now,
              }),
            ),
      provider:
        openfeature === null
          ? null
          : keep('openfeature', { ...openfeature, provider: idOf(openfeature.provider) }, () =>
              createProvider(
                {
                  provider: openfeature.provider,
                  url: openfeature.url,
                  token: openfeature.token,
                  timeoutMs: openfeature.timeout,
                  cacheMs: openfeature.cache,
                  entries: openfeature.entries,
                },
                {
                  now: () => performance.now(),
                  count: deps.count.provider,
                  onTrouble: (flag) =>
                    deps.log.warn({ flag }, 'the OpenFeature provider does not answer: what it said last holds, else legacy'),
                },
              ),
            ),
    };
  };
