import { createHash } from 'node:crypto';
import type { Reason, Upstream } from '@banyan/contracts/vocabulary.ts';
import express, { type ErrorRequestHandler, type Request, type Response, type Router } from 'express';
import { decideKey } from '../core/decide-key.ts';
import { demand, type Identity } from './access.ts';
import type { FlagsPort, ShownFlag } from './ports.ts';

/** OpenFeature Remote Evaluation Protocol 0.2: contexts are flags, their value is who answers the queries of a targeting key. */

const BODY_LIMIT = 65_536;

type ErrorCode = 'PARSE_ERROR' | 'TARGETING_KEY_MISSING' | 'INVALID_CONTEXT' | 'FLAG_NOT_FOUND';
type Evaluation = {
  readonly key: string;
  readonly value: Upstream;
  readonly variant: Upstream;
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string | number | boolean>>;
};

/** Our reasons in OpenFeature's words; ours are in the metadata. */
const REASON_OF: Partial<Record<Reason, string>> = { STAGE: 'STATIC', SPLIT: 'SPLIT', KILLED: 'DISABLED' };

const evaluate = (flag: ShownFlag, targetingKey: string): Evaluation => {
  const { bucket, upstream, reason } = decideKey(flag, targetingKey);
  return {
    key: flag.name,
    value: upstream,
    variant: upstream,
    reason: REASON_OF[reason] ?? 'UNKNOWN',
    metadata: { reason, bucket, stage: flag.stage, percent: flag.canaryShareBp / 100, killed: flag.killed, version: flag.version },
  };
};

type Asked = { readonly targetingKey: string } | { readonly errorCode: ErrorCode; readonly errorDetails: string };

const readAsked = (body: unknown): Asked => {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    return { errorCode: 'PARSE_ERROR', errorDetails: 'body: expected a JSON object with a context' };
  const { context = {} } = body as { context?: unknown };
  if (typeof context !== 'object' || context === null || Array.isArray(context))
    return { errorCode: 'INVALID_CONTEXT', errorDetails: 'context: expected an object' };
  const { targetingKey } = context as { targetingKey?: unknown };
  if (targetingKey === undefined || targetingKey === null || targetingKey === '')
    return { errorCode: 'TARGETING_KEY_MISSING', errorDetails: 'context.targetingKey: expected the sticky key' };
  if (typeof targetingKey !== 'string') return { errorCode: 'INVALID_CONTEXT', errorDetails: 'context.targetingKey: expected text' };
  return { targetingKey };
};

/** Routes below `/ofrep/v1`. Errors in what was asked are answered as the protocol says; others (no token, no such host) are problems as everywhere. */
export const ofrepRouter = (
  flags: Pick<FlagsPort, 'all' | 'current'>,
  identify: (authorization: string | undefined) => Identity,
): Router => {
  const router = express.Router({ caseSensitive: true });
  router.use((req, _res, next) => {
    // before the body is read: strangers may not make us parse
    demand(identify(req.headers.authorization), 'viewer');
    next();
  });
  router.use(express.json({ limit: BODY_LIMIT, type: () => true, inflate: false, strict: false }));

  router.post('/evaluate/flags/:key', (req: Request, res: Response) => {
    const key = String(req.params.key);
    const flag = flags.current(key);
    if (!flag) {
      res.status(404).json({ key, errorCode: 'FLAG_NOT_FOUND', errorDetails: 'there is no context of this name' });
      return;
    }
    const asked = readAsked(req.body);
    if ('errorCode' in asked) res.status(400).json({ key, ...asked });
    else res.json(evaluate(flag, asked.targetingKey));
  });

  router.post('/evaluate/flags', (req: Request, res: Response) => {
    const asked = readAsked(req.body);
    if ('errorCode' in asked) {
      res.status(400).json(asked);
      return;
    }
    const body = JSON.stringify({ flags: flags.all().map((flag) => evaluate(flag, asked.targetingKey)) });
    const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 27)}"`;
    res.set('etag', etag);
    const known = (req.headers['if-none-match'] ?? '').split(',').map((tag) => tag.trim().replace(/^W\//, ''));
    if (known.includes(etag)) res.status(304).end();
    else res.type('application/json').send(body);
  });

  const unreadable: ErrorRequestHandler = (error, req, res, next) => {
    const type = (error as { type?: unknown }).type;
    if (type !== 'entity.parse.failed') return next(error);
    const key = /^\/evaluate\/flags\/([^/]+)$/.exec(req.path)?.[1];
    res.status(400).json({ ...(key === undefined ? {} : { key }), errorCode: 'PARSE_ERROR', errorDetails: 'body: expected JSON' });
  };
  router.use(unreadable);
  return router;
};
