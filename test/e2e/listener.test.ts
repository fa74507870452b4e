import { once } from 'node:events';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { createAuthority } from '../harness/certificates.ts';
import { type Running, run } from '../harness/processes.ts';
import { until } from '../harness/wait.ts';

/** `banyan run` with TLS and HTTP/2 in front, from its configuration file. */

let folder: string;
const legacy = createServer((req, res) => {
  req.resume();
  req.on('end', () => res.end(`${req.headers['x-forwarded-proto']} ${req.headers.via} ${req.url}`));
});
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'banyan listener-'));
  legacy.listen(0, '127.0.0.1');
  await once(legacy, 'listening');
});
afterAll(async () => {
  legacy.closeAllConnections();
  legacy.close();
  rmSync(folder, { recursive: true, force: true });
});

const save = (name: string, text: string): void => {
  writeFileSync(join(folder, `${name}.new`), text);
  renameSync(join(folder, `${name}.new`), join(folder, name));
};

const configOf = (prefix: string): string =>
  JSON.stringify({
    version: 1,
    listen: { address: '127.0.0.1:0', tls: { cert: `${prefix}.crt`, key: `${prefix}.key` }, http2: true },
    admin: { listen: '127.0.0.1:0' },
    legacy: { url: `http://127.0.0.1:${(legacy.address() as AddressInfo).port}` },
  });

const gateway = (): Running =>
  run('gateway/cli/main.ts', ['run', '--config', 'banyan.yaml'], {
    cwd: folder,
    env: { DATABASE_URL: undefined, BANYAN_SEAL_KEY: undefined },
  });

/** Names of the certificate that a new connection is shown. */
const shown = async (port: number): Promise<string> => {
  const socket = connectTls({ host: '127.0.0.1', port, servername: 'shop.test', rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { subjectaltname = '' } = socket.getPeerCertificate();
  socket.destroy();
  return subjectaltname;
};

const ask = async (session: ClientHttp2Session, path: string): Promise<{ status: unknown; body: string }> => {
  const stream = session.request({ ':path': path, ':authority': 'shop.test' });
  const [head] = (await once(stream, 'response')) as unknown as [Record<string, unknown>];
  let body = '';
  for await (const chunk of stream) body += String(chunk);
  return { status: head[':status'], body };
};

it('swaps its certificate while requests run and loses none; then it says GOAWAY and goes', async () => {
  const authority = await createAuthority();
  const first = await authority.issue({ names: ['shop.test'] });
  const second = await authority.issue({ names: ['shop.test', 'second.test'] });
  const third = await authority.issue({ names: ['shop.test', 'third.test'] });
  for (const [name, { cert, key }] of [
    ['a', first],
    ['b', third],
  ] as const) {
    save(`${name}.crt`, cert);
    save(`${name}.key`, key);
  }
  save('banyan.yaml', configOf('a'));
  const running = gateway();
  const { gateway: url } = (await running.ready()) as { gateway: string };
  expect(url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
  const port = Number(new URL(url).port);

  const dial = (): ClientHttp2Session => connectHttp2(url, { ca: authority.ca, servername: 'shop.test' });
  const kept = dial();
  expect(await ask(kept, '/a')).toEqual({ status: 200, body: 'https 2.0 banyan /a' });

  let stop = false;
  let asked = 0;
  const failures: unknown[] = [];
  const traffic = (async () => {
    while (!stop) {
      const fresh = dial();
      fresh.on('error', (error) => failures.push(error));
      const answers = await Promise.all([kept, kept, fresh, fresh].map((session, i) => ask(session, `/${i}`)));
      asked += answers.length;
      for (const [i, answer] of answers.entries())
        if (answer.status !== 200 || answer.body !== `https 2.0 banyan /${i}`) failures.push(answer);
      fresh.close();
      await pause(20);
    }
  })();
  const becomes = (name: string) => until(async () => (await shown(port)).includes(name), { describe: `a certificate for ${name}` });
  // by the PEM files themselves …
  save('a.crt', second.cert);
  save('a.key', second.key);
  await becomes('second.test');
  // … and by the configuration
  save('banyan.yaml', configOf('b'));
  await becomes('third.test');
  // A pair that does not fit is refused, and nothing changes.
  save('b.crt', first.cert);
  await running.line(/changed certificates are refused/);
  expect(await shown(port)).toContain('third.test');
  expect(running.lines.join('\n')).not.toContain('PRIVATE KEY');
  stop = true;
  await traffic;
  expect(failures).toEqual([]);
  expect(asked).toBeGreaterThan(0);

  const told = once(kept, 'goaway');
  running.signal('SIGTERM');
  expect((await told)[0]).toBe(0);
  expect(await running.exited).toEqual({ code: 0, signal: null });
  kept.destroy();
});

it('does not start with a key that is another certificate’s, and says where it stands', async () => {
  const authority = await createAuthority();
  save('c.crt', (await authority.issue({ names: ['shop.test'] })).cert);
  save('c.key', (await authority.issue({ names: ['shop.test'] })).key);
  save('banyan.yaml', configOf('c'));
  const running = gateway();
  expect((await running.exited).code).not.toBe(0);
  const said = running.lines.join('\n');
  expect(said).toMatch(/banyan\.yaml:1:\d+: listen\.tls\.key: is not the key of cert; expected a private key/);
  expect(said).not.toContain('PRIVATE KEY-');
});
