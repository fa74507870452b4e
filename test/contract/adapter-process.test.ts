import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { freshDatabase } from '../harness/database.ts';
import { freePort } from '../harness/ports.ts';
import { run } from '../harness/processes.ts';
import { type AdapterRig, adapterRig, ask } from './adapter-rig.ts';

const MAIN = 'legacy-adapter/main.ts';
let rig: AdapterRig;
let folder: string;
beforeAll(async () => {
  rig = await adapterRig();
  folder = await mkdtemp(join(tmpdir(), 'banyan-adapter-'));
});
afterAll(async () => {
  await rig.stop();
  await rm(folder, { recursive: true });
});
const env = (more: Record<string, string> = {}): Record<string, string | undefined> => ({
  DATABASE_URL: rig.urls.store,
  LEGACY_DATABASE_URL: rig.urls.legacy,
  HOST: undefined,
  PORT: '0',
  BANYAN_ADAPTER_TOKEN: undefined,
  ...more,
});

describe('the adapter as a process', () => {
  it('starts from banyan.yaml, says where it listens, asks for its token and leaves cleanly', async () => {
    const port = await freePort();
    const file = join(folder, 'banyan.yaml');
    await writeFile(
      file,
      `version: 1
listen: 127.0.0.1:8080
adapter: { url: "http://127.0.0.1:${port}", legacyDatabase: "\${SHOP_URL}", capture: trigger }
store: "\${DATABASE_URL:-}"
admin: { tokens: [ { token: "\${NOT_FOR_THE_ADAPTER}" } ] }
contexts:
  order: { publisher: capture, match: [ { path: /api/orders/** } ] }
  billing: { stage: legacy }
`,
    );
    const adapter = run(MAIN, ['--config', file], {
      env: env({ SHOP_URL: rig.urls.legacy, LEGACY_DATABASE_URL: '', BANYAN_ADAPTER_TOKEN: 'secret' }),
    });
    const urls = await adapter.ready();
    expect(urls).toEqual({ adapter: `http://127.0.0.1:${port}` });
    const at = { url: urls.adapter!, stop: async () => {} };
    expect(await ask(at, 'GET', '/livez')).toEqual({ status: 200, body: { status: 'ok' } });
    for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: 'Basic secret' }] as Record<string, string>[])
      expect(await ask(at, 'GET', '/v1/capture', undefined, headers)).toMatchObject({
        status: 401,
        body: { code: 'unauthorized', status: 401 },
      });
    const { status, body } = await ask(at, 'GET', '/v1/capture', undefined, { authorization: 'Bearer secret' });
    expect(status).toBe(200);
    expect(body).toMatchObject({ installed: true, tables: ['shop.t_order', 'shop.t_order_pos'] });
    expect(await ask(at, 'GET', '/nowhere')).toMatchObject({ status: 404, body: { code: 'not-found' } });
    const broken = await fetch(`${at.url}/v1/contexts/order/ids`, {
      method: 'POST',
      body: '{',
      headers: { 'content-type': 'application/json', authorization: 'Bearer secret', connection: 'close' },
    });
    expect([broken.status, broken.headers.get('content-type')]).toEqual([400, 'application/problem+json; charset=utf-8']);
    expect(await adapter.stop()).toEqual({ code: 0, signal: null });
  });

  it('waits for a store that is still being made, and says so', async () => {
    const empty = await freshDatabase('empty');
    const adapter = run(MAIN, [], { env: env({ DATABASE_URL: empty.url }) });
    await adapter.line(/waiting: the store has no function .*banyan\.observe_change/);
    expect(await adapter.stop()).toEqual({ code: 0, signal: null });
    await empty.drop();
  });

  it('prints its help', async () => {
    const adapter = run(MAIN, ['--help'], { env: env() });
    expect(await adapter.exited).toEqual({ code: 0, signal: null });
    expect(adapter.stdout.join('\n')).toMatch(/--no-install/);
  });

  it('refuses what it cannot do in one line and exits 2', async () => {
    const file = join(folder, 'wal.yaml');
    await writeFile(file, 'adapter: { capture: wal }');
    const adapter = run(MAIN, ['--config', file], { env: env() });
    expect(await adapter.exited).toEqual({ code: 2, signal: null });
    expect(adapter.stderr.filter((line) => line.startsWith('banyan adapter:'))).toEqual([
      'banyan adapter: cannot start: adapter.capture: wal is not supported yet, use trigger',
    ]);
  });

  it('says that a port is taken', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise((listening) => server.once('listening', listening));
    const { port } = server.address() as { port: number };
    const adapter = run(MAIN, [], { env: env({ PORT: String(port) }) });
    expect(await adapter.exited).toEqual({ code: 2, signal: null });
    expect(adapter.stderr.join('\n')).toMatch(/banyan adapter: cannot start: listen EADDRINUSE/);
    await new Promise((closed) => server.close(closed));
  });
});
