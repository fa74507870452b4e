import { describe, expect, it } from '@jest/globals';
import express, { type Express } from 'express';
import request from 'supertest';
import { serviceGuard } from './access.ts';
import { answerProblem } from './http.ts';

const TOKEN = 'a-token-of-the-services';
const appWith = (token: string | undefined): Express =>
  express()
    .use(serviceGuard(token))
    .use((_req, res) => void res.json({ ok: true }))
    .use(answerProblem(() => undefined));

const GUARDED = [
  ['PUT', '/_saga/c1'],
  ['GET', '/_saga/c1'],
  ['DELETE', '/_saga/c1'],
  ['PUT', '/_SAGA/c1'],
  ['PUT', '/%5fsaga/c1'],
  ['GET', '/_banyan/dlq'],
  ['POST', '/_banyan/dlq/replay'],
  ['POST', '/_Banyan/Dlq/Replay/'],
  ['GET', '/_banyan/sagas/s1'],
  ['POST', '/_banyan/sagas/s1/resolve'],
  ['POST', '/_banyan/consumer'],
] as const;
const FREE = [
  ['GET', '/_banyan/consumer'],
  ['GET', '/_banyan/checksum'],
  ['GET', '/livez'],
  ['POST', '/api/orders'],
  ['GET', '/_sagas'],
] as const;

const ask = async (app: Express, method: string, path: string, authorization?: string): Promise<number> => {
  const call = request(app)[method.toLowerCase() as 'get'](path);
  return (await (authorization === undefined ? call : call.set('authorization', authorization))).status;
};

describe('what the services keep for each other and for operators', () => {
  const app = appWith(TOKEN);
  const closed = appWith(undefined);

  it.each(GUARDED)('%s %s needs the token', async (method, path) => {
    expect(await ask(app, method, path)).toBe(401);
    expect(await ask(app, method, path, `Bearer ${TOKEN}x`)).toBe(401);
    expect(await ask(app, method, path, `Basic ${TOKEN}`)).toBe(401);
    expect(await ask(app, method, path, `Bearer ${TOKEN}`)).toBe(200);
    expect(await ask(closed, method, path, 'Bearer ')).toBe(403);
    expect(await ask(closed, method, path, 'Bearer undefined')).toBe(403);
  });
  it.each(FREE)('%s %s does not', async (method, path) => {
    expect(await ask(app, method, path)).toBe(200);
    expect(await ask(closed, method, path)).toBe(200);
  });
});
