import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import {
  auditRowSchema,
  auditVerdictSchema,
  contextSchema,
  flipSchema,
  flipStartedSchema,
  ledgerEntrySchema,
  pageOf,
  pairDetailSchema,
  pairSchema,
  parityHourSchema,
  parityLatencySchema,
  paritySchema,
  readinessSchema,
  statusSchema,
  streamsSchema,
} from '@banyan/contracts/admin-api.ts';
import { createAdmin } from '@banyan/gateway/admin/admin.ts';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import request from 'supertest';
import { type AdapterFake, type AdminSystem, adminSystem, configOf, SECRETS, startAdapterFake, TOKENS } from '../harness/admin.ts';
import { type FreshDatabase, freshDatabase } from '../harness/database.ts';
import { until } from '../harness/wait.ts';

let database: FreshDatabase;
let system: AdminSystem;
let adapter: AdapterFake;

beforeAll(async () => {
  database = await freshDatabase('store');
  adapter = await startAdapterFake();
});
afterAll(async () => {
  await adapter.stop();
  await database.drop();
});
beforeEach(async () => {
  adapter.requests.length = 0;
  adapter.answer = { status: 200, body: { mode: 'trigger', installed: true } };
  system = await adminSystem(database.url, {}, await configOf('', adapter.url));
});
afterEach(async () => {
  await system.db.raw('truncate banyan.context, banyan.member, banyan.flip');
  await system.stop();
});

const api = () => request(system.admin.handler);
const get = (path: string) => api().get(`/api/v1${path}`).set('host', 'localhost');
const put = (path: string, body: object) => api().put(`/api/v1${path}`).set('host', 'localhost').send(body);
const post = (path: string, body: object = {}) => api().post(`/api/v1${path}`).set('host', 'localhost').send(body);
const latestAudit = async () => (await get('/audit?limit=1').expect(200)).body.items[0];
const expectProblem = (response: request.Response, status: number, code: string) => {
  expect(response.status).toBe(status);
  expect(response.headers['content-type']).toContain('application/problem+json');
  expect(response.body).toMatchObject({ type: `https://banyan.dev/problems/${code}`, status, code, detail: expect.any(String) });
  return response.body;
};

describe('what needs the store', () => {
  it('is 503 with Retry-After while it is away, and no error of ours', async () => {
    const gone = () => Promise.reject(Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }));
    const admin = createAdmin({ ...system.deps, ledger: { list: gone, get: gone, resolve: gone } });
    const response = await request(admin.handler).get('/api/v1/ledger').set('host', 'localhost');
    expectProblem(response, 503, 'store-unavailable');
    expect(Number(response.headers['retry-after'])).toBeGreaterThan(0);
  });
});

describe('health', () => {
  it('livez tells only that the process lives, to any host name', async () => {
    await api().get('/livez').set('host', '10.1.2.3:8081').expect(200, { status: 'alive' });
  });

  it('readyz is ready, and lists its checks when asked', async () => {
    await api().get('/readyz').expect(200, { status: 'ready' });
    const { body } = await api().get('/readyz?verbose').expect(200);
    expect(readinessSchema.parse(body).checks?.map((check) => [check.name, check.ok])).toEqual([
      ['config', true],
      ['listener', true],
      ['draining', true],
      ['flags', true],
      ['store', true],
      ['upstream legacy', true],
      ['upstream extracted order', false],
    ]);
    expect(JSON.stringify(body)).not.toContain('127.0.0.1');
  });

  it('readyz is 503 while draining and before listening', async () => {
    system.set.listening = false;
    await api().get('/readyz').expect(503, { status: 'starting', reason: 'listener: does not accept connections' });
    system.set.draining = true;
    await api().get('/readyz').expect(503, { status: 'draining', reason: 'draining: stops after the requests in flight' });
  });

  it('readyz stays 200 without the store, and says degraded', async () => {
    const store = { ping: () => Promise.reject(new Error('gone')), replicas: () => Promise.reject(new Error('gone')) };
    const admin = createAdmin({ ...system.deps, store });
    const { body } = await request(admin.handler).get('/readyz?verbose').expect(200);
    expect(body.status).toBe('degraded');
    expect(body.checks).toContainEqual({ name: 'store', ok: false, detail: 'does not answer' });
    const status = await request(admin.handler).get('/api/v1/status').set('host', 'localhost').expect(200);
    expect(status.body).toMatchObject({ store: { configured: true, ok: false }, replicas: [] });
  });

  it('metrics are Prometheus text', async () => {
    const { text, headers } = await api().get('/metrics').set('host', 'localhost').expect(200);
    expect(headers['content-type']).toContain('text/plain');
    expect(text).toContain('banyan_build_info{version="1.2.3"');
    expect(text).toContain('banyan_flag_rollout_ratio{context="order"} 0');
  });
});

describe('contexts', () => {
  it('are shown in the shape of the contract', async () => {
    const { body } = await get('/contexts').expect(200);
    const page = pageOf(contextSchema).parse(body);
    expect(page.items.map((context) => context.name)).toEqual(['inventory', 'order']);
    const one = await get('/contexts/order').expect(200);
    expect(contextSchema.parse(one.body)).toMatchObject({
      name: 'order',
      stage: 'legacy',
      percent: 0,
      killed: false,
      version: 1,
      epoch: 1,
      ramp: null,
      flip: null,
    });
    const problem = expectProblem(await get('/contexts/nope'), 404, 'not-found');
    expect(problem.detail).toBe('no context is called "nope"; there are: inventory, order');
  });

  it('move, with percentages outside and basis points inside, audited with who and why', async () => {
    await put('/contexts/order/stage', { stage: 'shadow', reason: 'look first' }).expect(200);
    const { body } = await put('/contexts/order/stage', { stage: 'canary', percent: 12.5, reason: 'a few', ifVersion: 2 }).expect(200);
    expect(contextSchema.parse(body)).toMatchObject({ stage: 'canary', percent: 12.5, version: 3, updatedBy: 'local' });
    expect(system.flags.current('order')?.canaryShareBp).toBe(1250);
    expect(await latestAudit()).toMatchObject({
      actor: 'local',
      action: 'stage',
      context: 'order',
      reason: 'a few',
      after: { stage: 'canary', canaryShareBp: 1250 },
    });
  });

  it('take shares that binary fractions cannot hold', async () => {
    await put('/contexts/order/stage', { stage: 'canary', percent: 0.07, force: true, reason: 'tiny' }).expect(200);
    expect(system.flags.current('order')?.canaryShareBp).toBe(7);
    expect((await get('/contexts/order')).body.percent).toBe(0.07);
  });

  it('refuse illegal moves and stale versions with 409', async () => {
    const problem = expectProblem(await put('/contexts/order/stage', { stage: 'canary', reason: 'hurry' }), 409, 'illegal-move');
    expect(problem).toMatchObject({ from: 'legacy', to: 'canary', legal: ['shadow'] });
    expectProblem(await put('/contexts/order/stage', { stage: 'shadow', reason: 'late', ifVersion: 99 }), 409, 'stale-version');
    expect(system.flags.current('order')?.version).toBe(1);
  });

  it('answer 202 for a flip, which then can be watched', async () => {
    await put('/contexts/order/stage', { stage: 'canary', force: true, reason: 'go' }).expect(200);
    let level = (): void => undefined;
    system.set.level = () =>
      new Promise((resolve) => {
        level = resolve;
      });
    const { body } = await put('/contexts/order/stage', { stage: 'cutover', reason: 'ready' }).expect(202);
    const { flip } = flipStartedSchema.parse(body);
    expect((await get('/contexts/order')).body.flip).toEqual({ id: flip.id, state: 'pending' });
    expect(flipSchema.parse((await get(`/flips/${flip.id}`).expect(200)).body)).toMatchObject({
      contexts: ['order'],
      from: 'canary',
      to: 'cutover',
      actor: 'local',
      reason: 'ready',
    });
    expectProblem(await put('/contexts/order/stage', { stage: 'legacy', reason: 'no' }), 409, 'conflict');
    await until(
      async () => {
        level();
        return (await get(`/flips/${flip.id}`)).body.state === 'done';
      },
      { describe: 'the flip to be done' },
    );
    await until(async () => (await get('/contexts/order')).body.stage === 'cutover', { describe: 'cutover to show' });
    expect((await get('/contexts/order')).body).toMatchObject({ epoch: 2, flip: null, percent: 100 });
    for (const id of ['nope', '00000000-0000-4000-8000-000000000000']) expectProblem(await get(`/flips/${id}`), 404, 'not-found');
  });

  it('are killed and revived, one or all', async () => {
    expect((await post('/contexts/order/kill', { reason: 'smoke' }).expect(200)).body).toMatchObject({ name: 'order', killed: true });
    expect(await latestAudit()).toMatchObject({ action: 'kill', context: 'order', reason: 'smoke' });
    expect((await post('/contexts/order/revive', { reason: 'out' }).expect(200)).body.killed).toBe(false);
    const killed = await post('/kill', { reason: 'fire' }).expect(200);
    expect(killed.body.items.map((context: { killed: boolean }) => context.killed)).toEqual([true, true]);
    const revived = await post('/revive', { reason: 'out' }).expect(200);
    expect(revived.body.items.map((context: { killed: boolean }) => context.killed)).toEqual([false, false]);
    expectProblem(await post('/contexts/nope/kill', { reason: 'x' }), 404, 'not-found');
    expectProblem(await post('/contexts/nope/revive', { reason: 'x' }), 404, 'not-found');
  });

  it('kill all leaves retired contexts alone', async () => {
    await system.db('banyan.context').where({ name: 'inventory' }).update({ stage: 'retired', owner: 'extracted', version: 2 });
    await system.flags.refresh();
    const { body } = await post('/kill', { reason: 'fire' }).expect(200);
    expect(body.items.map((context: { name: string; killed: boolean }) => [context.name, context.killed])).toEqual([
      ['inventory', false],
      ['order', true],
    ]);
    expectProblem(await post('/contexts/inventory/kill', { reason: 'x' }), 409, 'illegal-move');
  });

  it('pass a kill on to the peers while the store is away, once', async () => {
    const peer = await startAdapterFake();
    try {
      const base = await configOf(`\n  peers: [ "${peer.url}" ]`, adapter.url);
      const flags = { ...system.flags, pendingKills: () => ['order'] };
      const admin = createAdmin({ ...system.deps, config: () => base, flags });
      const kill = () => request(admin.handler).post('/api/v1/contexts/order/kill').set('host', 'localhost');
      const response = await kill().set('authorization', 'Bearer x').send({ reason: 'store gone' }).expect(200);
      expect(response.headers['banyan-peers']).toBe('1/1');
      expect(peer.requests).toEqual([{ method: 'POST', url: '/api/v1/contexts/order/kill', authorization: 'Bearer x' }]);
      await kill().set('banyan-peer', '1').send({ reason: 'told by a peer' }).expect(200);
      expect(peer.requests).toHaveLength(1);
    } finally {
      await peer.stop();
    }
  });
});

describe('evidence', () => {
  it('parity reports, pairs and ledger entries pass in the shape of the contract', async () => {
    paritySchema.parse((await get('/contexts/order/parity').expect(200)).body);
    pageOf(parityLatencySchema).parse((await get('/contexts/order/parity/latency').expect(200)).body);
    pageOf(parityHourSchema).parse((await get('/contexts/order/parity/hours?hours=3').expect(200)).body);
    await get('/contexts/order/parity/hours?hours=0').expect(400);
    await get('/contexts/nobody/parity/hours').expect(404);
    expectProblem(await get('/contexts/nope/parity'), 404, 'not-found');
    expect(
      pageOf(pairSchema).parse((await get('/pairs?context=order&verdict=mismatch&requestId=req-1&limit=5').expect(200)).body).items,
    ).toHaveLength(1);
    expect((await get('/pairs?verdict=match').expect(200)).body).toEqual({ items: [], next: null });
    pairDetailSchema.parse((await get('/pairs/7').expect(200)).body);
    expectProblem(await get('/pairs/8'), 404, 'not-found');
    const first = pageOf(ledgerEntrySchema).parse((await get('/ledger?limit=2').expect(200)).body);
    expect([first.items.map((entry) => entry.id), first.next]).toEqual([['a3', 'a2'], 'a2']);
    expect((await get(`/ledger?limit=2&cursor=${first.next}`).expect(200)).body).toMatchObject({ items: [{ id: 'a1' }], next: null });
    expect((await get('/ledger?state=parked&context=order').expect(200)).body.items).toMatchObject([{ id: 'a2' }]);
    ledgerEntrySchema.parse((await get('/ledger/a2').expect(200)).body);
    expectProblem(await get('/ledger/zz'), 404, 'not-found');
  });

  it('a parked write is resolved once, and audited', async () => {
    expect((await post('/ledger/a2/resolve', { as: 'applied', reason: 'seen in the shop' }).expect(200)).body.state).toBe('applied');
    expect(await latestAudit()).toMatchObject({
      action: 'ledger-resolve',
      context: 'order',
      reason: 'seen in the shop',
      before: { id: 'a2', state: 'parked' },
      after: { id: 'a2', state: 'applied', as: 'applied' },
    });
    expectProblem(await post('/ledger/a2/resolve', { as: 'applied', reason: 'again' }), 409, 'illegal-move');
    expectProblem(await post('/ledger/zz/resolve', { as: 'applied', reason: 'x' }), 404, 'not-found');
    const problem = expectProblem(await post('/ledger/a2/resolve', { as: 'maybe', reason: 'x' }), 400, 'bad-request');
    expect(problem.detail).toBe('as: expected one of applied, not-applied, no-event, compensate');
  });

  it('parts that are not there say so', async () => {
    const admin = createAdmin({ ...system.deps, ledger: null, parity: null, audit: null, flips: null });
    for (const path of ['/ledger', '/ledger/a', '/pairs', '/pairs/1', '/contexts/order/parity', '/audit', '/audit/verify'])
      expectProblem(await request(admin.handler).get(`/api/v1${path}`).set('host', 'localhost'), 409, 'not-configured');
  });
});

describe('audit', () => {
  it('is listed newest first, by context, page by page', async () => {
    for (const reason of ['one', 'two', 'three'])
      await post('/contexts/order/kill', { reason }).then(() => post('/contexts/order/revive', { reason }));
    await post('/contexts/inventory/kill', { reason: 'other' });
    const first = pageOf(auditRowSchema).parse((await get('/audit?context=order&limit=4').expect(200)).body);
    expect(first.items.map((row) => `${row.action} ${row.reason}`)).toEqual(['revive three', 'kill three', 'revive two', 'kill two']);
    const second = (await get(`/audit?context=order&limit=2&cursor=${first.next}`).expect(200)).body;
    expect(second.items.map((row: { action: string; reason: string }) => `${row.action} ${row.reason}`)).toEqual([
      'revive one',
      'kill one',
    ]);
    expectProblem(await get('/audit?cursor=x'), 400, 'bad-request');
  });

  it('verify names the row that somebody edited behind its back', async () => {
    await post('/contexts/order/kill', { reason: 'real' });
    expect(auditVerdictSchema.parse((await get('/audit/verify').expect(200)).body).ok).toBe(true);
    const { id } = await latestAudit();
    await post('/contexts/order/revive', { reason: 'later' });
    await expect(system.db('banyan.audit').where({ id }).update({ reason: 'forged' })).rejects.toThrow('append-only');
    await expect(system.db.raw('truncate banyan.audit')).rejects.toThrow('append-only');
    const forge = async (reason: string) => {
      await system.db.raw('alter table banyan.audit disable trigger audit_append_only');
      await system.db('banyan.audit').where({ id }).update({ reason });
      await system.db.raw('alter table banyan.audit enable trigger audit_append_only');
    };
    await forge('forged');
    const { body } = await get('/audit/verify').expect(200);
    expect(auditVerdictSchema.parse(body)).toMatchObject({ ok: false, faults: [{ id, fault: 'content does not match its hash' }] });
    await forge('real');
    expect((await get('/audit/verify')).body.ok).toBe(true);
  });
});

describe('system', () => {
  it('status is one document', async () => {
    const { body } = await get('/status').expect(200);
    expect(statusSchema.parse(body)).toMatchObject({
      version: '1.2.3',
      draining: false,
      store: { configured: true, ok: true },
      stream: { configured: true, ok: true, backlog: { depth: 3, oldestAgeMs: 1500 } },
      adapter: { configured: true, ok: true },
      replicas: [{ name: 'test', alive: true }],
    });
    expect(body.contexts).toHaveLength(2);
    expect(streamsSchema.parse((await get('/streams').expect(200)).body)).toMatchObject({ facts: 'domain-events', backlog: { depth: 3 } });
  });

  it('config is shown without its secrets', async () => {
    system.set.config = await configOf(TOKENS, adapter.url);
    const { body, text } = await get('/config').set('authorization', 'Bearer viewer-token').expect(200);
    expect(body.contexts.order.extracted.url).toBe('http://127.0.0.1:4001');
    for (const secret of SECRETS) expect(text).not.toContain(secret);
  });

  it('reload says what it did, and refuses a bad file with its faults', async () => {
    await post('/config/reload').expect(200, { ok: true, faults: [], warnings: [] });
    expect(await latestAudit()).toMatchObject({ action: 'config-reload' });
    system.set.reloaded = { ok: false, faults: ['banyan.yaml:3:1 unknown key'], warnings: [] };
    const problem = expectProblem(await post('/config/reload', { reason: 'again' }), 422, 'unprocessable');
    expect(problem.faults).toEqual(['banyan.yaml:3:1 unknown key']);
  });

  it('capture is asked of the adapter, and its changes are audited', async () => {
    await get('/capture').expect(200, { mode: 'trigger', installed: true });
    for (const action of ['install', 'snapshot', 'remove']) {
      await post(`/capture/${action}`, { reason: `please ${action}` }).expect(200);
      expect(await latestAudit()).toMatchObject({ action: `capture-${action}`, reason: `please ${action}` });
    }
    expect(adapter.requests.map((one) => `${one.method} ${one.url}`)).toEqual([
      'GET /v1/capture',
      'POST /v1/capture/install',
      'POST /v1/capture/snapshot',
      'POST /v1/capture/remove',
    ]);
    expectProblem(await post('/capture/install', {}), 400, 'bad-request');
    const before = (await latestAudit()).id;
    adapter.answer = {
      status: 409,
      body: { type: 'x', status: 409, code: 'conflict', title: 'Conflict', detail: 'triggers are in the way' },
    };
    const refused = await post('/capture/install', { reason: 'x' });
    expect([refused.status, refused.body.detail]).toEqual([409, 'triggers are in the way']);
    expect((await latestAudit()).id).toBe(before);
  });

  it('an adapter that is away is 502, and only that', async () => {
    system.set.config = await configOf('', 'http://127.0.0.1:1');
    expectProblem(await get('/capture'), 502, 'upstream-unreachable');
    expect((await get('/status').expect(200)).body.adapter).toMatchObject({ ok: false, detail: 'does not answer' });
  });

  it('openapi.json lists the routes that are mounted, and each is', async () => {
    const { body } = await api().get('/openapi.json').set('host', 'localhost').expect(200);
    expect(body.openapi).toBe('3.1.0');
    const listed = Object.entries(body.paths as Record<string, object>).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => ({ method, path })),
    );
    expect(listed.length).toBeGreaterThan(20);
    for (const { method, path } of listed) {
      const url = path.replace('{name}', 'nope').replace('{id}', 'nope');
      const response = await api()
        [method as 'get' | 'post' | 'put'](url)
        .set('host', 'localhost')
        .set('content-type', 'application/json')
        .send(method === 'get' ? undefined : '{"nope":1}');
      expect({ method, path, unmounted: response.body.detail?.endsWith('is not a path of this API') ?? false }).toEqual({
        method,
        path,
        unmounted: false,
      });
    }
    const stage = body.paths['/api/v1/contexts/{name}/stage'].put;
    expect(stage.requestBody.content['application/json'].schema.required).toEqual(['stage', 'reason']);
  });

  it('what is not there is 404, also what comes later', async () => {
    for (const path of ['/api/v1/nope', '/api/v2/contexts', '/nope', '/api/v1/Contexts'])
      expectProblem(await api().get(path).set('host', 'localhost'), 404, 'not-found');
    expectProblem(await post('/contexts/order/ramp', { action: 'start' }), 409, 'not-configured');
    expectProblem(await post('/contexts/order/ramp', { action: 'leap' }), 400, 'bad-request');
  });

  it('the page loads nothing from elsewhere and runs nothing inline', async () => {
    const { text, headers } = await api().get('/').set('host', 'localhost').expect(200);
    expect(headers['content-type']).toContain('text/html');
    expect(headers['content-security-policy']).toContain("default-src 'none'");
    expect(text).not.toMatch(/<script(?![^>]*\bsrc=)/);
    expect(text).not.toMatch(/\son\w+=|style=|https?:/);
    for (const [, path] of text.matchAll(/(?:src|href)="([^"]+)"/g)) {
      const asset = await api().get(`/${path}`).set('host', 'localhost').expect(200);
      expect(asset.text ?? '').not.toMatch(/innerHTML|insertAdjacentHTML|document\.write|\beval\(/);
    }
  });
});

describe('live', () => {
  it('streams every context, then each that changes, and ends with the listener', async () => {
    const { url } = await system.admin.start();
    const req = httpRequest(new URL('/api/v1/live', url), { headers: { host: 'localhost' } }).end();
    const [res] = await once(req, 'response');
    expect(res.headers['content-type']).toContain('text/event-stream');
    let text = '';
    res.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    const seen = () =>
      [...text.matchAll(/^event: context\ndata: (.*)\n\n/gm)]
        .map(([, data]) => contextSchema.parse(JSON.parse(data!)))
        .map((context) => `${context.name} ${context.stage}`);
    await until(() => seen().length >= 2, { describe: 'all contexts' });
    await put('/contexts/order/stage', { stage: 'shadow', reason: 'look' }).expect(200);
    await until(() => seen().includes('order shadow'), { describe: 'the change' });
    const ended = once(res, 'end');
    await system.admin.stop();
    await ended;
  });
});

describe('protections', () => {
  it('a host name that is not listed is refused, whatever its port', async () => {
    await api().get('/api/v1/contexts').set('host', '127.0.0.1:9999').expect(200);
    await api().get('/api/v1/contexts').set('host', 'LOCALHOST.:80').expect(200);
    for (const host of ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example:8081', '[::1]:8081', ''])
      for (const path of ['/api/v1/contexts', '/', '/metrics', '/openapi.json'])
        expectProblem(await api().get(path).set('host', host), 403, 'forbidden');
  });

  it('an IPv6 address can be listed', async () => {
    system.set.config = await configOf('\n  hosts: [ "::1" ]');
    await api().get('/api/v1/contexts').set('host', '[::1]:8081').expect(200);
  });

  it('changes need JSON', async () => {
    const kill = () => api().post('/api/v1/contexts/order/kill').set('host', 'localhost');
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'application/jsonp'])
      expectProblem(await kill().set('content-type', type).send('{"reason":"x"}'), 415, 'unsupported-media-type');
    expectProblem(await kill(), 415, 'unsupported-media-type');
    expectProblem(
      await kill().set('content-type', 'application/json; charset=utf-7').send('{"reason":"x"}'),
      415,
      'unsupported-media-type',
    );
    await kill().set('content-type', 'application/json; charset=utf-8').send('{"reason":"x"}').expect(200);
  });

  it('changes from pages of other origins are refused', async () => {
    for (const site of ['cross-site', 'same-site']) {
      expectProblem(await post('/contexts/order/kill', { reason: 'x' }).set('sec-fetch-site', site), 403, 'forbidden');
      await get('/contexts').set('sec-fetch-site', site).expect(200);
    }
    for (const site of ['same-origin', 'none']) await post('/contexts/order/kill', { reason: 'x' }).set('sec-fetch-site', site).expect(200);
  });

  it('bodies are bounded, and must be JSON objects', async () => {
    const kill = (text: string) =>
      api().post('/api/v1/contexts/order/kill').set('host', 'localhost').set('content-type', 'application/json').send(text);
    expectProblem(await kill(JSON.stringify({ reason: 'x'.repeat(70_000) })), 413, 'payload-too-large');
    for (const text of ['{"reason":', '', 'null', '"x"', '[]', '{"reason":"x"}}']) expectProblem(await kill(text), 400, 'bad-request');
    expectProblem(await kill('{"reason":"x"}').set('content-encoding', 'gzip'), 415, 'unsupported-media-type');
  });

  it.each([
    [{ stage: 'moon', reason: 'x' }, 'stage: expected one of legacy, shadow, canary, cutover, retired'],
    [{ stage: 'shadow' }, 'reason: expected why, in words (1 to 1000 characters)'],
    [{ stage: 'shadow', reason: '  ' }, 'reason: expected why, in words (1 to 1000 characters)'],
    [{ stage: 'canary', reason: 'x', percent: 101 }, 'percent: expected a percentage from 0 to 100 in steps of 0.01, such as 12.5'],
    [{ stage: 'canary', reason: 'x', percent: 0.001 }, 'percent: expected a percentage from 0 to 100 in steps of 0.01, such as 12.5'],
    [{ stage: 'canary', reason: 'x', percent: '5' }, 'percent: expected a percentage from 0 to 100 in steps of 0.01, such as 12.5'],
    [{ stage: 'shadow', reason: 'x', force: 'yes' }, 'force: expected true or false'],
    [{ stage: 'shadow', reason: 'x', ifVersion: 1.5 }, 'ifVersion: expected the version as a whole number'],
    [{ stage: 'shadow', reason: 'x', percentage: 5 }, 'percentage: expected nothing: there is no such field'],
  ])('a change like %j is told what was expected', async (body, detail) => {
    const problem = expectProblem(await put('/contexts/order/stage', body), 400, 'bad-request');
    expect(problem.detail).toBe(detail);
    expect(system.flags.current('order')?.version).toBe(1);
  });

  it.each([
    ['/ledger?limit=0', 'limit: expected a whole number from 1 to 500'],
    ['/ledger?limit=abc', 'limit: expected a whole number from 1 to 500'],
    ['/pairs?limit=201', 'limit: expected a whole number from 1 to 200'],
    ['/ledger?state=lost', /^state: expected one of intent, /],
    ['/ledger?nope=1', 'nope: expected nothing: there is no such field'],
    ['/ledger?context=a&context=b', 'context: expected one name'],
    ['/contexts?limit=1', 'limit: expected nothing: there is no such field'],
  ])('a query like %s is told what was expected', async (path, detail) => {
    const problem = expectProblem(await get(path), 400, 'bad-request');
    expect(problem.detail).toEqual(typeof detail === 'string' ? detail : expect.stringMatching(detail));
  });

  it('every answer forbids caching, sniffing and framing', async () => {
    for (const path of ['/', '/api/v1/contexts', '/api/v1/nope', '/livez', '/metrics']) {
      const { headers } = await api().get(path).set('host', 'localhost');
      expect(headers).toMatchObject({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', 'x-frame-options': 'DENY' });
      expect(headers['content-security-policy']).toContain("frame-ancestors 'none'");
      expect(headers['x-powered-by']).toBeUndefined();
    }
  });

  it('what fails inside leaks nothing', async () => {
    const audit = { ...system.deps.audit!, list: () => Promise.reject(new Error('password hunter2 in /srv/secret')) };
    const admin = createAdmin({ ...system.deps, audit });
    const response = await request(admin.handler).get('/api/v1/audit').set('host', 'localhost');
    expectProblem(response, 500, 'internal');
    expect(response.text).not.toMatch(/hunter2|srv|Error/);
  });
});

describe('tokens', () => {
  beforeEach(async () => {
    system.set.config = await configOf(TOKENS, adapter.url);
  });
  const as = (role: string, test: request.Test) => test.set('authorization', `Bearer ${role}-token`);

  it('are needed for everything but probes and the empty page', async () => {
    for (const path of ['/contexts', '/audit', '/config', '/live', '/nope']) {
      const response = await get(path);
      expectProblem(response, 401, 'unauthorized');
      expect(response.headers['www-authenticate']).toBe('Bearer realm="banyan"');
    }
    expectProblem(await api().get('/metrics').set('host', 'localhost'), 401, 'unauthorized');
    for (const wrong of ['Bearer viewer-toke', 'Bearer viewer-token2', 'Basic dmVyYQ==', 'Bearer', 'viewer-token'])
      expectProblem(await get('/contexts').set('authorization', wrong), 401, 'unauthorized');
    for (const path of ['/', '/page.js', '/livez', '/readyz']) await api().get(path).set('host', 'localhost').expect(200);
  });

  it('carry a role and a name', async () => {
    await as('viewer', get('/contexts')).expect(200);
    await as('viewer', api().get('/metrics').set('host', 'localhost')).expect(200);
    expectProblem(await as('viewer', post('/contexts/order/kill', { reason: 'x' })), 403, 'forbidden');
    await as('operator', post('/contexts/order/kill', { reason: 'x' })).expect(200);
    expect((await as('viewer', get('/audit?limit=1'))).body.items[0].actor).toBe('otto');
    expectProblem(await as('operator', post('/config/reload')), 403, 'forbidden');
    expectProblem(await as('operator', post('/capture/remove', { reason: 'x' })), 403, 'forbidden');
    await as('admin', post('/config/reload')).expect(200);
  });

  it('a reload takes tokens away and brings others', async () => {
    system.set.config = await configOf('\n  tokens: [ { name: new, role: admin, token: brand-new } ]', adapter.url);
    expectProblem(await as('admin', get('/contexts')), 401, 'unauthorized');
    await get('/contexts').set('authorization', 'Bearer brand-new').expect(200);
  });
});

describe('the listener', () => {
  const bound = async (admin: string) => {
    const base = await configOf(admin, adapter.url);
    return { ...base, admin: { ...base.admin, listen: { host: '0.0.0.0', port: 0 } } };
  };

  it('refuses to be reached by strangers without tokens', async () => {
    const open = await bound('');
    const admin = createAdmin({ ...system.deps, config: () => open });
    await expect(admin.start()).rejects.toThrow(
      'admin.listen 0.0.0.0:0 can be reached from other machines: set admin.tokens, or listen on 127.0.0.1',
    );
  });

  it('lets nobody in when a reload takes the tokens from one that can be reached', async () => {
    let now = await bound(TOKENS);
    const admin = createAdmin({ ...system.deps, config: () => now });
    now = await bound('');
    expectProblem(await request(admin.handler).get('/api/v1/contexts').set('host', 'localhost'), 401, 'unauthorized');
  });

  it('says when its port is taken', async () => {
    const { url } = await system.admin.start();
    const port = Number(new URL(url).port);
    const base = system.set.config;
    const config = { ...base, admin: { ...base.admin, listen: { host: '127.0.0.1', port } } };
    await expect(createAdmin({ ...system.deps, config: () => config }).start()).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });
});
