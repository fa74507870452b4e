import { createHash, timingSafeEqual } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import { ROLES, type Role } from '@banyan/contracts/vocabulary.ts';
import type { NextFunction, Request, RequestHandler, Response } from 'express';
import type { AdminConfig } from '../config.ts';

/** Who asks, and what they may do. */
export type Identity = { readonly name: string; readonly role: Role };

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** `Host` without its port, brackets and trailing dot, in lower case; a bare IPv6 address stays whole. */
const hostOf = (header: string): string => {
  const text = header.trim().toLowerCase();
  const bracketed = /^\[([^\]]*)\](?::\d*)?$/.exec(text);
  if (bracketed) return bracketed[1] ?? '';
  return (text.split(':').length > 2 ? text : text.replace(/:\d*$/, '')).replace(/\.$/, '');
};

/**
 * Only names that the configuration lists may be used to reach this listener; ports do not matter. Against DNS rebinding:
 * a page of another origin whose name resolves here still sends its own name.
 */
export const hostGuard =
  (admin: () => AdminConfig): RequestHandler =>
  (req, _res, next) => {
    const host = hostOf(req.headers.host ?? '');
    if (host !== '' && admin().hosts.some((allowed) => hostOf(allowed) === host)) return next();
    next(new AppError('forbidden', `the host name ${JSON.stringify(host.slice(0, 100))} is not on admin.hosts`));
  };

const SAME_ORIGIN = new Set(['same-origin', 'none']);

/** Changes come from our own pages or from no page at all, and as JSON, which no form of another page can send. */
export const changeGuard: RequestHandler = (req: Request, _res: Response, next: NextFunction) => {
  if (req.method === 'GET' || req.method === 'HEAD') return next();
  const site = req.headers['sec-fetch-site'];
  if (site !== undefined && !SAME_ORIGIN.has(String(site)))
    return next(new AppError('forbidden', 'changes from pages of other origins are refused (Sec-Fetch-Site)'));
  if (!/^application\/json\s*(?:;\s*charset\s*=\s*"?utf-?8"?\s*)?$/i.test(req.headers['content-type'] ?? ''))
    return next(new AppError('unsupported-media-type', 'content-type: expected application/json in UTF-8'));
  next();
};

const LOCAL: Identity = { name: 'local', role: 'admin' };

/** Tells who a request comes from. Without tokens everybody is `local`, on loopback only: a reload may take the tokens away from a listener that is open to others. */
export const createAuthenticator = (
  admin: () => AdminConfig,
  loopback: () => boolean,
): ((authorization: string | undefined) => Identity) => {
  let of: AdminConfig | null = null;
  let known: { readonly digest: Buffer; readonly identity: Identity }[] = [];
  return (authorization) => {
    const now = admin();
    if (now !== of) {
      known = now.tokens.map((token) => ({ digest: digest(token.token), identity: { name: token.name, role: token.role } }));
      of = now;
    }
    if (known.length === 0) {
      if (loopback()) return LOCAL;
      throw new AppError('unauthorized', 'no tokens are configured any more, and this address can be reached from other machines');
    }
    const given = /^bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
    if (given === undefined) throw new AppError('unauthorized', 'a bearer token is needed: Authorization: Bearer TOKEN');
    const hash = digest(given);
    // every token is compared, so that time tells nothing about which one came close
    let found: Identity | undefined;
    for (const token of known) if (timingSafeEqual(token.digest, hash)) found = token.identity;
    if (!found) throw new AppError('unauthorized', 'this token is not known here');
    return found;
  };
};

/** @throws AppError `forbidden` when the role is weaker than the one needed */
export const demand = (identity: Identity, role: Role): void => {
  if (ROLES.indexOf(identity.role) < ROLES.indexOf(role))
    throw new AppError('forbidden', `${identity.name} is ${identity.role}, this needs ${role}`);
};

/** Headers of every answer: nothing is cached, framed, sniffed, or loaded from elsewhere. */
export const answerHeaders: RequestHandler = (_req, res, next) => {
  res.set({
    'content-security-policy':
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'cache-control': 'no-store',
  });
  next();
};
