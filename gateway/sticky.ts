import { randomUUID } from 'node:crypto';
import type { StickySelector } from './config.ts';
import type { Claims } from './identity/tokens.ts';
import type { Call } from './proxy/call.ts';
import { headerOf } from './proxy/headers.ts';

/** The cookie that Banyan issues where a canary client has no sticky key of its own. */
export const ID_COOKIE = 'banyan-id';

/** What keeps one client on one side; `issued` when this very answer gives it its cookie. */
export type Sticky = {
  readonly key: string | null;
  readonly issued: string | null;
  /** The client brought it along as its own: no other client comes by it through asking for the same thing. */
  readonly personal: boolean;
};

export const NO_STICKY: Sticky = { key: null, issued: null, personal: false };

/** Longest key that counts: it is hashed for every request. */
const MAX_KEY = 4_096;

export const cookieOf = (header: string | undefined, name: string): string | undefined => {
  if (header === undefined) return undefined;
  for (const part of header.split(';')) {
    const at = part.indexOf('=');
    if (at > 0 && part.slice(0, at).trim() === name) return part.slice(at + 1).trim() || undefined;
  }
  return undefined;
};

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Node hands header bytes over as Latin-1. What is UTF-8 is read as UTF-8, so that a key has the bucket that `banyan bucket` prints for it. */
export const textOf = (value: string): string => {
  if (!/[\x80-\xff]/.test(value)) return value;
  try {
    return utf8.decode(Buffer.from(value, 'latin1'));
  } catch {
    return value;
  }
};

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

/** First value of a query parameter, decoded as forms are. */
const queryOf = (query: string, name: string): string | undefined => {
  for (const part of query.split('&')) {
    const at = part.indexOf('=');
    if (at > 0 && decoded(part.slice(0, at).replaceAll('+', ' ')) === name) return decoded(part.slice(at + 1).replaceAll('+', ' '));
  }
  return undefined;
};

/** Text and numbers identify; lists, objects and booleans do not. */
const claimOf = (claims: Claims | null, name: string): string | undefined => {
  const value = claims !== null && Object.hasOwn(claims, name) ? claims[name] : undefined;
  return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined;
};

/** What a sticky key is looked for in. */
export type Bearings = { readonly call: Call; readonly params: Readonly<Record<string, string>>; readonly claims: Claims | null };

const foundAt = ({ call, params, claims }: Bearings, { from, name }: StickySelector, cookies: string | undefined): string | undefined => {
  switch (from) {
    case 'header': {
      const value = headerOf(call.headers, name);
      return value === undefined ? undefined : textOf(value);
    }
    case 'cookie': {
      const value = cookieOf(cookies, name);
      return value === undefined ? undefined : textOf(value);
    }
    case 'jwt':
      return claimOf(claims, name);
    case 'path':
      return Object.hasOwn(params, name) ? decoded(params[name]!) : undefined;
    case 'query':
      return queryOf(call.query, name);
  }
};

/** Banyan's own cookie, once issued, comes before every configured key. @param issue give a client without any a cookie */
export const stickyOf = (of: Bearings, keys: readonly StickySelector[], issue: boolean): Sticky => {
  const cookies = headerOf(of.call.headers, 'cookie');
  const own = cookieOf(cookies, ID_COOKIE);
  if (own !== undefined) return { key: own, issued: null, personal: true };
  for (const selector of keys) {
    const key = foundAt(of, selector, cookies);
    if (key !== undefined && key !== '' && key.length <= MAX_KEY)
      return { key, issued: null, personal: selector.from !== 'path' && selector.from !== 'query' };
  }
  if (!issue) return NO_STICKY;
  const id = randomUUID();
  return { key: id, issued: id, personal: false };
};
