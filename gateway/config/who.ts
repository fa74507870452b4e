import { UPSTREAMS } from '@banyan/contracts/vocabulary.ts';
import { z } from 'zod';
import { object, oneOf } from './shapes.ts';
import { duration, origin, text, textual, whole } from './values.ts';

/** Keys that say who a request belongs to, and who may decide for it: sticky keys, JWT, overrides, `identity`, OpenFeature. */

const TOKEN = String.raw`[!#$%&'*+.^_\`|~0-9A-Za-z-]{1,256}`;

const CIDR = 'an address block such as 10.0.0.0/8, or one address';

const isCidr = (raw: string): boolean => {
  const [ip = '', bits, more] = raw.trim().split('/');
  const v4 = /^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$/.test(ip);
  const v6 = ip.includes(':') && URL.canParse(`http://[${ip}]/`);
  const most = v4 ? 32 : 128;
  return (v4 || v6) && more === undefined && (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= most));
};

export const cidr = () => textual(CIDR, (raw) => (isCidr(raw) ? { ok: true, value: raw.trim() } : { ok: false, expected: CIDR }));

/** Where a client's key stands. Header names in lower case; `path` is a parameter of the route, `jwt` a claim. */
export type StickySelector = { readonly from: 'header' | 'cookie' | 'jwt' | 'path' | 'query'; readonly name: string };

const STICKY = 'header:NAME, cookie:NAME, jwt:CLAIM, path:NAME or query:NAME';
const STICKY_FORM = new RegExp(
  String.raw`^(?:(header|cookie):(${TOKEN})|(jwt):([^\s=]{1,256})|(path):([A-Za-z_][A-Za-z0-9_]{0,255})|(query):([^&=#\s]{1,256}))$`,
);

const stickySelector = () =>
  textual(STICKY, (raw) => {
    const found = STICKY_FORM.exec(raw.trim());
    if (found === null) return { ok: false, expected: STICKY };
    const [from = '', name = ''] = found.slice(1).filter((part) => part !== undefined);
    const value: StickySelector = { from: from as StickySelector['from'], name: from === 'header' ? name.toLowerCase() : name };
    return { ok: true, value };
  });

/** First one present wins; empty = a `banyan-id` cookie is issued. */
export const stickyKeys = () =>
  z
    .union([stickySelector(), z.array(stickySelector(), { error: `a list of ${STICKY}` }).max(32, { error: 'at most 32 entries' })], {
      error: `a list of ${STICKY}`,
    })
    .transform((value) => (Array.isArray(value) ? value : [value]))
    .prefault([]);

/** When an override holds; `value` null = the field need only be there. */
export type OverrideCondition = {
  readonly from: 'header' | 'cookie' | 'jwt' | 'cidr';
  readonly name: string;
  readonly value: string | null;
};

const WHEN = 'header:NAME, header:NAME=VALUE, cookie:NAME=VALUE, jwt:CLAIM=VALUE or cidr:BLOCK';
const WHEN_FORM = new RegExp(String.raw`^(?:(header|cookie):(${TOKEN}?)|(jwt):([^\s=]{1,256}))(?:=(.{1,1024}))?$`);

const overrideCondition = () =>
  textual(WHEN, (raw) => {
    const given = raw.trim();
    const refused = { ok: false, expected: WHEN } as const;
    if (given.startsWith('cidr:')) {
      const block = given.slice('cidr:'.length).trim();
      const value: OverrideCondition = { from: 'cidr', name: block, value: null };
      return isCidr(block) ? { ok: true, value } : refused;
    }
    const found = WHEN_FORM.exec(given);
    const from = (found?.[1] ?? found?.[3]) as 'header' | 'cookie' | 'jwt' | undefined;
    const name = found?.[2] ?? found?.[4] ?? '';
    if (from === undefined || name === '') return refused;
    const value: OverrideCondition = { from, name: from === 'header' ? name.toLowerCase() : name, value: found?.[5] ?? null };
    return { ok: true, value };
  });

/** Queries whose side is fixed before cutover; the first entry that holds wins. */
export const overrides = () =>
  z
    .array(object({ to: oneOf(UPSTREAMS), when: overrideCondition() }), { error: 'a list of { to, when }' })
    .max(1_000, { error: 'at most 1000 entries' })
    .prefault([]);

const url = () => {
  const expected = 'an address such as https://login.example/.well-known/jwks.json';
  return textual(expected, (raw) =>
    URL.canParse(raw) && /^https?:$/.test(new URL(raw).protocol) ? { ok: true, value: raw } : { ok: false, expected },
  );
};

/** A secret of 32 characters or more (HS256), or PEM text (RSA, EC, Ed25519); empty text = none. */
const key = () =>
  z
    .string({ error: 'text' })
    .max(65_536)
    .refine((given) => given === '' || given.length >= 32, { error: 'PEM text, or a secret of at least 32 characters' })
    .transform((given) => (given === '' ? null : given))
    .nullable()
    .prefault(null);

/** How bearer tokens of clients are believed. Exactly one of `jwks` and `key`. */
export const jwt = object({
  jwks: url().nullable().prefault(null),
  key: key(),
  issuer: text(1_024).nullable().prefault(null),
  audience: text(1_024).nullable().prefault(null),
  /** Lower case. `authorization` needs `Bearer`, any other field may do without. */
  header: textual('a header name such as authorization', (raw) =>
    new RegExp(`^${TOKEN}$`).test(raw)
      ? { ok: true, value: raw.toLowerCase() }
      : { ok: false, expected: 'a header name such as authorization' },
  ).prefault('authorization'),
});

/** The key of tokens that allow a single request to choose its side. PEM (Ed25519) or a secret (HS256). */
export const overrideToken = object({ key: key() });

export const identity = object({
  /** Asked of legacy with the client's credentials. */
  from: textual('GET PATH such as GET /whoami', (raw) => {
    const found = /^GET\s+(\/[^\s#]*)(?:\s+on\s+legacy)?$/.exec(raw.trim());
    return found === null
      ? { ok: false, expected: 'GET PATH such as GET /whoami' }
      : { ok: true, value: { method: 'GET' as const, path: found[1] ?? '/' } };
  }),
  /** ms that an answer is remembered, also that there is nobody. */
  cache: duration().prefault('30s'),
  /** ms for one question. */
  timeout: duration().prefault('500ms'),
  /** Header that carries the signed JWT, in lower case. */
  as: textual('header:NAME such as header:x-banyan-identity', (raw) => {
    const found = new RegExp(`^header[: ]\\s*(${TOKEN})(?:\\s*\\(signed JWT\\))?$`).exec(raw.trim());
    return found === null
      ? { ok: false, expected: 'header:NAME such as header:x-banyan-identity' }
      : { ok: true, value: { header: (found[1] ?? '').toLowerCase() } };
  }).prefault('header:x-banyan-identity'),
  /** Ed25519 private key (PEM), or a secret of 32 characters or more for HS256; null = an Ed25519 key derived from `seal.key`. */
  key: key(),
});

/** Makes an OpenFeature provider; in `banyan.config.ts` only. */
export type ProviderFactory = () => object;

export const provider = z.union([oneOf(['ofrep']), z.custom<ProviderFactory>((value) => typeof value === 'function')], {
  error: 'ofrep, or in banyan.config.ts a function that makes a provider',
});

export const openfeature = object({
  /** `ofrep` needs `url`. */
  provider,
  url: origin().nullable().prefault(null),
  /** Sent as bearer. */
  token: text().nullable().prefault(null),
  /** ms that a request waits for a key that nobody asked about yet. */
  timeout: duration().prefault('20ms'),
  /** ms until an answer is asked for again, beside the requests. */
  cache: duration().prefault('30s'),
  /** Keys remembered. */
  entries: whole(1, 1_000_000).prefault(10_000),
});

/** What a provider decides for a context in canary. */
export const provided = object({
  /** null = the context's name. */
  flag: text(256).nullable().prefault(null),
  /** `upstream`: a text flag, `legacy` or `extracted`, per sticky key; `share`: a number flag, 0 to 100, for the whole context. */
  decides: oneOf(['upstream', 'share']).prefault('upstream'),
});
