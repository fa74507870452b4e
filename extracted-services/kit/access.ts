import { createHash, timingSafeEqual } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';
import type { RequestHandler } from 'express';

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** As Express may come to see it: no route may be reached in a spelling that the guard does not know. */
const spelled = (path: string): string => {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
};

/** Paths that change something, or show what people have ordered. */
const GUARDED = /^\/(_saga|_banyan\/(dlq|sagas|commands))(\/|$)/i;

/**
 * Keeps strangers from the saga's commands and from what operators do: whoever can reach the service could otherwise charge, ship and skip. A bearer token is asked for, the
 * same as the gateway and the saga service hold. Without one configured nobody gets in, on loopback neither: every user and every page of a browser on the machine can reach that.
 * Reads of `/_banyan/consumer` and `/_banyan/checksum` are free, they name no one.
 */
export const serviceGuard = (token: string | undefined): RequestHandler => {
  const expected = token === undefined ? null : digest(token);
  return (req, _res, next) => {
    const reads = req.method === 'GET' || req.method === 'HEAD';
    const path = spelled(req.path);
    if (!GUARDED.test(path) && (reads || !/^\/_banyan(\/|$)/i.test(path))) return next();
    if (expected === null) return next(new AppError('forbidden', 'closed, because BANYAN_SERVICE_TOKEN is not set for this service'));
    const given = /^bearer +(\S+)$/i.exec(req.headers.authorization ?? '')?.[1];
    if (given === undefined) return next(new AppError('unauthorized', 'a bearer token is needed: Authorization: Bearer TOKEN'));
    if (!timingSafeEqual(expected, digest(given))) return next(new AppError('unauthorized', 'this token is not known here'));
    next();
  };
};
