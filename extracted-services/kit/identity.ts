import { createPublicKey } from 'node:crypto';
import { type JWTPayload, jwtVerify } from 'jose';

export type IdentityVerifierOptions = {
  /** What `banyan identity key` prints (PEM), or the secret that stands in `identity.key`. */
  readonly key: string;
  /** The service's context: a token for another one is not believed. */
  readonly context: string;
  /** Default `x-banyan-identity`. */
  readonly header?: string;
  /** ms since 1970; default the clock. */
  readonly now?: () => number;
};

/** Who is logged in at the monolith, as the gateway has signed it; null = nobody, or nobody that can be believed. Never rejects. */
export type IdentityVerifier = (headers: Readonly<Record<string, string | string[] | undefined>>) => Promise<JWTPayload | null>;

/** Seconds that the clocks of gateway and service may differ. */
const CLOCK_TOLERANCE = 5;

/** @throws Error when the key cannot be read */
export const createIdentityVerifier = (options: IdentityVerifierOptions): IdentityVerifier => {
  const name = (options.header ?? 'x-banyan-identity').toLowerCase();
  const pem = options.key.includes('-----BEGIN ');
  const key = pem ? createPublicKey(options.key) : new TextEncoder().encode(options.key);
  const algorithms = pem ? ['EdDSA', 'Ed25519', 'ES256', 'ES384', 'ES512', 'RS256'] : ['HS256'];
  return async (headers) => {
    const token = headers[name];
    if (typeof token !== 'string') return null;
    try {
      const { payload } = await jwtVerify(token, key, {
        algorithms,
        issuer: 'banyan',
        audience: options.context,
        requiredClaims: ['exp', 'iat'],
        clockTolerance: CLOCK_TOLERANCE,
        currentDate: new Date(options.now?.() ?? Date.now()),
      });
      return payload;
    } catch {
      return null;
    }
  };
};
