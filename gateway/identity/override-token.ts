import { hash } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import { UPSTREAMS, type Upstream } from '@banyan/contracts/vocabulary.ts';
import { jwtVerify, SignJWT } from 'jose';
import { Lru } from '../core/lru.ts';
import { type Key, readKey } from './keys.ts';

/** Both ends of the token that lets one request choose its side: `banyan override token` signs, the gateway verifies. */

const AUDIENCE = 'banyan-override';
/** Longest life of a token, seconds. */
const MAX_LIFE_SECONDS = 86_400;
const MAX_TOKEN = 4_096;
const MAX_KNOWN = 1_000;
/** How long a refused token is known as one, ms. */
const REFUSED_MS = 10_000;

/** @param seconds 1..86400. @throws AppError `not-configured` when the key can only verify */
export const signOverride = async (key: string, context: string, upstream: Upstream, seconds: number, now: number): Promise<string> => {
  const { sign, algorithms } = readKey(key, 'overrideToken.key');
  if (sign === null)
    throw new AppError('not-configured', 'overrideToken.key is a public key, and only verifies: sign with the private one');
  const at = Math.floor(now / 1_000);
  return new SignJWT({ context, upstream })
    .setProtectedHeader({ alg: algorithms[0], typ: 'JWT' })
    .setIssuer('banyan')
    .setAudience(AUDIENCE)
    .setIssuedAt(at)
    .setExpirationTime(at + seconds)
    .sign(sign);
};

type Allowed = { readonly context: string; readonly upstream: Upstream };
type Known = { readonly allowed: Allowed | null; readonly until: number };

const allowedBy = async (token: string, key: Key, now: number): Promise<Known> => {
  const refused: Known = { allowed: null, until: now + REFUSED_MS };
  try {
    const { payload } = await jwtVerify(token, key.verify, {
      algorithms: [...key.algorithms],
      audience: AUDIENCE,
      requiredClaims: ['exp', 'iat'],
      currentDate: new Date(now),
    });
    const { context, iat, exp } = payload;
    const upstream = UPSTREAMS.find((side) => side === payload.upstream);
    if (typeof context !== 'string' || upstream === undefined || iat === undefined || exp === undefined) return refused;
    if (exp - iat > MAX_LIFE_SECONDS || exp * 1_000 - now > MAX_LIFE_SECONDS * 1_000) return refused;
    return { allowed: { context, upstream }, until: exp * 1_000 };
  } catch {
    return refused;
  }
};

export type OverrideTokens = {
  /**
   * The side that `header` (`CONTEXT=UPSTREAM`) asks for, if it is for this context and `token` allows just that; else null. A promise only for a
   * token that nobody has shown lately. Never rejects.
   */
  sideFor(context: string, header: string, token: string): Upstream | null | Promise<Upstream | null>;
};

/** @param now ms since 1970 @throws AppError `not-configured` for a key that cannot be read */
export const createOverrideTokens = (key: string, now: () => number): OverrideTokens => {
  const verifier = readKey(key, 'overrideToken.key');
  const known = new Lru<Known>(MAX_KNOWN);
  const sideOf = ({ allowed }: Known, context: string, wanted: string): Upstream | null =>
    allowed !== null && allowed.context === context && allowed.upstream === wanted ? allowed.upstream : null;
  return {
    sideFor(context, header, token) {
      const at = header.indexOf('=');
      if (header.slice(0, at).trim() !== context || token.length > MAX_TOKEN) return null;
      const wanted = header.slice(at + 1).trim();
      const id = hash('sha256', token, 'base64');
      const found = known.get(id);
      if (found && found.until > now()) return sideOf(found, context, wanted);
      return allowedBy(token, verifier, now()).then((fresh) => {
        known.set(id, fresh);
        return sideOf(fresh, context, wanted);
      });
    },
  };
};
