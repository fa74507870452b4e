import { hash } from 'node:crypto';
import { createRemoteJWKSet, decodeJwt, errors, type JWTPayload, jwtVerify } from 'jose';
import { Lru } from '../core/lru.ts';
import { readKey } from './keys.ts';

export type Claims = Readonly<Record<string, unknown>>;

export type TokenSettings = {
  /** Where the issuer's keys are published; asked when a token names a key that is not known yet. */
  readonly jwks: string | null;
  /** PEM or secret. Neither `jwks` nor `key` = nothing is verified. */
  readonly key: string | null;
  readonly issuer: string | null;
  readonly audience: string | null;
};

/** Reads the tokens of clients. */
export type TokenReader = {
  /** Claims, or null for a token that is not believed; a promise only for one that nobody has shown lately. Never rejects. */
  read(token: string): Claims | null | Promise<Claims | null>;
};

/** Longer ones are not looked at. */
const MAX_TOKEN = 8_192;
const MAX_KNOWN = 10_000;
/** A token without `exp` is verified anew after this, ms. */
const KEEP_MS = 600_000;
/** One that was refused, ms: `nbf` may come, keys may be published. */
const REFUSED_MS = 10_000;
/** How long a request waits for a verification, ms; keys that are fetched may take longer, and serve the next request. */
const WAIT_MS = 500;
/** After keys could not be fetched, ms during which nobody waits for them. */
const DOWN_MS = 1_000;

/** Nothing is verified: fit to put clients into buckets, for nothing else. */
export const unverifiedTokens = (): TokenReader => ({
  read(token) {
    if (token.length > MAX_TOKEN) return null;
    try {
      return decodeJwt(token);
    } catch {
      return null;
    }
  },
});

type Known = { readonly claims: JWTPayload | null; readonly until: number };

/** The token said something that is wrong, and will go on saying it; anything else is our trouble in reaching the keys. */
const isRefusal = (error: unknown): boolean =>
  error instanceof errors.JOSEError && error.code !== errors.JWKSTimeout.code && error.code !== errors.JOSEError.code;

/** @param now ms since 1970 @throws AppError `not-configured` for a key that cannot be read */
export const verifiedTokens = (settings: TokenSettings, now: () => number): TokenReader => {
  const known = new Lru<Known>(MAX_KNOWN);
  const asked = new Map<string, Promise<JWTPayload | null>>();
  let downUntil = 0;
  const common = {
    ...(settings.issuer === null ? {} : { issuer: settings.issuer }),
    ...(settings.audience === null ? {} : { audience: settings.audience }),
  };
  const remote = settings.jwks === null ? null : createRemoteJWKSet(new URL(settings.jwks), { timeoutDuration: 5_000 });
  const local = settings.key === null ? null : readKey(settings.key, 'jwt.key');

  const check = async (token: string): Promise<JWTPayload | null> => {
    const options = { ...common, currentDate: new Date(now()) };
    if (remote) return (await jwtVerify(token, remote, options)).payload;
    if (local) return (await jwtVerify(token, local.verify, { ...options, algorithms: [...local.algorithms] })).payload;
    return null;
  };

  const verify = async (token: string, id: string): Promise<JWTPayload | null> => {
    try {
      const claims = await check(token);
      known.set(id, { claims, until: claims?.exp === undefined ? now() + KEEP_MS : claims.exp * 1_000 });
      return claims;
    } catch (error) {
      if (isRefusal(error)) known.set(id, { claims: null, until: now() + REFUSED_MS });
      else downUntil = now() + DOWN_MS;
      return null;
    } finally {
      asked.delete(id);
    }
  };

  const atMost = async (verified: Promise<JWTPayload | null>): Promise<JWTPayload | null> => {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(() => resolve(null), WAIT_MS);
    });
    try {
      return await Promise.race([verified, late]);
    } finally {
      clearTimeout(timer);
    }
  };

  return {
    read(token) {
      if (token.length > MAX_TOKEN) return null;
      // the token itself is not kept: what is in memory longer than a request should be worth nothing
      const id = hash('sha256', token, 'base64');
      const found = known.get(id);
      if (found && found.until > now()) return found.claims;
      const under = asked.get(id);
      if (now() < downUntil || (under === undefined && asked.size >= MAX_KNOWN)) return null;
      const verified = under ?? verify(token, id);
      asked.set(id, verified);
      return remote ? atMost(verified) : verified;
    },
  };
};
