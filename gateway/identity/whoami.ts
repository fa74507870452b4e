import { createHmac, randomBytes } from 'node:crypto';
import { type JWTPayload, SignJWT } from 'jose';
import { Lru } from '../core/lru.ts';
import type { Key } from './keys.ts';

export type WhoamiOutcome = 'known' | 'nobody' | 'failed' | 'cached';

export type WhoamiDeps = {
  /** Asks legacy with these credentials, flat pairs. Rejects when there is no whole answer in time. */
  readonly ask: (credentials: readonly string[]) => Promise<{ readonly status: number; readonly body: Buffer }>;
  readonly cacheMs: number;
  readonly key: Key;
  readonly count: (outcome: WhoamiOutcome) => void;
  /** Hears of the first failure after a success. Default: nobody. */
  readonly onTrouble?: (error: unknown) => void;
  /** ms since 1970. */
  readonly now: () => number;
};

/** Says to an extracted service who is logged in at legacy. */
export type Whoami = {
  /** A JWT for this context, or null where legacy knows nobody by these headers, or could not be asked. Never rejects. */
  tokenFor(context: string, headers: readonly string[]): Promise<string | null>;
};

const MAX_KNOWN = 10_000;
/** Sessions asked about at one time; more go without an identity. */
const MAX_ASKED = 256;
/** A failure is remembered this long, so that a monolith in trouble is not asked by every request, ms. */
const FAILED_MS = 1_000;
/** Life of a JWT, seconds; a new one is made when half of it is over. */
const LIFE_SECONDS = 60;
/** Header fields have to fit somewhere: longer claims are a failure. */
const MAX_TOKEN = 6_144;
const RESERVED: ReadonlySet<string> = new Set(['iss', 'aud', 'iat', 'exp', 'nbf', 'jti']);

type Person = {
  readonly claims: JWTPayload | null;
  readonly until: number;
  readonly tokens: Map<string, { token: string; renewAt: number }>;
};

const CREDENTIALS: ReadonlySet<string> = new Set(['cookie', 'authorization']);

/** Cookie and Authorization, repeats kept. */
const credentialsOf = (headers: readonly string[]): string[] => {
  const found: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    if (CREDENTIALS.has(name)) found.push(name, headers[i + 1]!);
  }
  return found;
};

/** Whole numbers beyond 2^53 would come out as another person's id: they stay as written, as text. */
const exact = (_key: string, value: unknown, context?: { source?: string }): unknown =>
  typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '') ? context!.source : value;

/** The members of the answer, without those that a JWT gives a meaning of its own; `sub` from `id` where legacy has none. null = nobody. */
const claimsOf = (status: number, body: Buffer): JWTPayload | null => {
  if (status >= 500 || status === 429) throw new Error(`legacy answered ${status}`);
  if (status !== 200) return null;
  const said: unknown = JSON.parse(body.toString('utf8'), exact);
  if (said === null) return null;
  if (typeof said !== 'object' || Array.isArray(said)) throw new Error('legacy answered something else than a JSON object');
  const claims: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(said))
    if (!RESERVED.has(name)) Object.defineProperty(claims, name, { value, enumerable: true });
  const subject = (said as { sub?: unknown }).sub ?? (said as { id?: unknown }).id;
  if (typeof subject === 'string' || typeof subject === 'number') return { ...claims, sub: String(subject) };
  const { sub: _sub, ...rest } = claims;
  return rest;
};

/** Answers are remembered by a keyed hash of the credentials, never by the credentials. */
export const createWhoami = (deps: WhoamiDeps): Whoami => {
  const { now, key } = deps;
  const hashKey = randomBytes(32);
  const people = new Lru<Person>(MAX_KNOWN);
  const asked = new Map<string, Promise<Person>>();
  let failing = false;

  const ask = async (id: string, credentials: readonly string[]): Promise<Person> => {
    let person: Person;
    try {
      const { status, body } = await deps.ask(credentials);
      const claims = claimsOf(status, body);
      person = { claims, until: now() + deps.cacheMs, tokens: new Map() };
      failing = false;
      deps.count(claims === null ? 'nobody' : 'known');
    } catch (error) {
      person = { claims: null, until: now() + Math.min(FAILED_MS, deps.cacheMs), tokens: new Map() };
      deps.count('failed');
      if (!failing) deps.onTrouble?.(error);
      failing = true;
    }
    people.set(id, person);
    asked.delete(id);
    return person;
  };

  const personOf = (credentials: readonly string[]): Person | null | Promise<Person> => {
    const id = createHmac('sha256', hashKey).update(JSON.stringify(credentials)).digest('base64');
    const known = people.get(id);
    if (known && known.until > now()) {
      deps.count('cached');
      return known;
    }
    const under = asked.get(id);
    if (under) return under;
    if (asked.size >= MAX_ASKED) {
      deps.count('failed');
      return null;
    }
    const answer = ask(id, credentials);
    asked.set(id, answer);
    return answer;
  };

  const sign = async (claims: JWTPayload, context: string): Promise<string> => {
    const at = Math.floor(now() / 1_000);
    return new SignJWT(claims)
      .setProtectedHeader({ alg: key.algorithms[0], typ: 'JWT' })
      .setIssuer('banyan')
      .setAudience(context)
      .setIssuedAt(at)
      .setExpirationTime(at + LIFE_SECONDS)
      .sign(key.sign!);
  };

  return {
    async tokenFor(context, headers) {
      const credentials = credentialsOf(headers);
      if (credentials.length === 0) return null;
      const person = await personOf(credentials);
      if (person === null || person.claims === null) return null;
      const made = person.tokens.get(context);
      if (made && now() < made.renewAt) return made.token;
      const token = await sign(person.claims, context).catch(() => null);
      if (token === null || token.length > MAX_TOKEN) {
        deps.count('failed');
        return null;
      }
      person.tokens.set(context, { token, renewAt: now() + (LIFE_SECONDS * 1_000) / 2 });
      return token;
    },
  };
};
