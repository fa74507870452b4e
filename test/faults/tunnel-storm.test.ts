import type { Socket } from 'node:net';
import { afterAll, describe, expect, it } from '@jest/globals';
import { closeFrame } from '../../gateway/proxy/frames.ts';
import { openRig, type Rig } from '../contract/proxy-rig.ts';
import { type RawConnection, statusOf } from '../harness/raw-http.ts';
import { until } from '../harness/wait.ts';

/** Tunnels under everything that can happen to a socket, at random but the same each time: nobody crashes, nothing stays behind. */

const EVENTS = 1_000;
const TUNNELS = 24;
const SEED = 20_260_101;

/** mulberry32 */
const randomFrom = (seed: number): (() => number) => {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
};

const unhandled: unknown[] = [];
const note = (error: unknown): void => void unhandled.push(error);
process.on('uncaughtExceptionMonitor', note);
process.on('unhandledRejection', note);
afterAll(() => {
  process.off('uncaughtExceptionMonitor', note);
  process.off('unhandledRejection', note);
});

const openSockets = (): number => process.getActiveResourcesInfo().filter((one) => one === 'TCPSocketWrap').length;

const upgradeTo = (protocol: string): string => `GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`;

/** What an upstream does with an upgrade, by the way it was asked for. */
const upstreamScript = async (connection: RawConnection): Promise<void> => {
  const { raw } = await connection.head();
  if (raw.includes('Upgrade: refuse\r\n')) connection.write('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno').end();
  else if (raw.includes('Upgrade: reset\r\n')) connection.reset();
  else if (raw.includes('Upgrade: nonsense\r\n')) connection.write('SSH-2.0\r\n\r\n').end();
  else {
    const protocol = /Upgrade: (\w+)/.exec(raw)![1];
    connection.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`);
  }
  await connection.closed;
};

type Pair = { readonly client: RawConnection; readonly upstream: RawConnection };

describe('a thousand mishaps', () => {
  it('leave no tunnel, no socket and no error behind, and the next tunnel works', async () => {
    // those of another file that ran in this process
    const before = openSockets();
    const random = randomFrom(SEED);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
    // nobody here is slow on purpose: an answer that a busy machine holds up must still be the one that was asked for
    const rig: Rig = await openRig(upstreamScript, { timeouts: { responseMs: 20_000 }, halfClosedMs: 100 });
    const sockets = new Set<Socket>();
    rig.listener.server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    });
    const pairs: Pair[] = [];

    const open = async (): Promise<void> => {
      const index = rig.server.connections.length;
      const client = (await rig.client()).write(upgradeTo(pick(['websocket', 'websocket', 'tcp'])));
      expect(statusOf(await client.message())).toBe(101);
      pairs.push({ client, upstream: rig.server.connections[index]! });
    };
    const garbage = (): Buffer => Buffer.from(Array.from({ length: 1 + Math.floor(random() * 2_000) }, () => Math.floor(random() * 256)));
    const mishaps: readonly ((pair: Pair) => void)[] = [
      ({ client }) => client.write(garbage()),
      ({ upstream }) => upstream.write(garbage()),
      ({ client, upstream }) => {
        client.write(garbage());
        upstream.write(garbage());
      },
      ({ client }) => client.write(closeFrame(1000, '', true)),
      ({ upstream }) => upstream.write(closeFrame(1000, '', false)),
      ({ client }) => client.end(),
      ({ upstream }) => upstream.end(),
      ({ client }) => client.reset(),
      ({ upstream }) => upstream.reset(),
      ({ client, upstream }) => {
        upstream.write(garbage());
        client.reset();
      },
      ({ client, upstream }) => {
        client.write(garbage());
        upstream.destroy();
      },
      ({ client, upstream }) => {
        client.reset();
        upstream.reset();
      },
      ({ client, upstream }) => {
        client.socket.pause();
        upstream.write(Buffer.alloc(1_000_000));
        setImmediate(() => client.destroy());
      },
      ({ client }) => void [...rig.upgrader.tunnels].at(client.socket.bytesRead % 2 ? 0 : -1)?.close('moved', 20, 40),
    ];

    for (let i = 0; i < EVENTS; i++) {
      for (let at = pairs.length - 1; at >= 0; at--) {
        const { client, upstream } = pairs[at]!;
        if (client.socket.destroyed || upstream.socket.destroyed || client.socket.writableEnded) pairs.splice(at, 1);
      }
      while (pairs.length < TUNNELS) await open();
      if (i % 25 === 0) (await rig.client()).write(upgradeTo(pick(['refuse', 'reset', 'nonsense'])));
      pick(mishaps)(pick(pairs));
      if (i % 5 === 0) await new Promise(setImmediate);
    }

    for (const { client } of pairs) client.destroy();
    for (const connection of rig.server.connections) connection.end();
    await until(() => rig.upgrader.tunnels.size === 0, { describe: 'the end of all tunnels', timeoutMs: 30_000 });

    // and all is as at the beginning
    await open();
    const { client, upstream } = pairs.at(-1)!;
    client.write('hello');
    expect(String(await upstream.bytes(5))).toBe('hello');
    expect([rig.upgrader.tunnels.size, rig.listener.tunnels]).toEqual([1, 1]);
    await rig.stop();
    expect([sockets.size, rig.upgrader.tunnels.size, rig.listener.tunnels, rig.listener.connections]).toEqual([0, 0, 0, 0]);
    expect(rig.tunnelled.length).toBeGreaterThan(200);
    await until(() => openSockets() <= before, { describe: 'every socket to be closed', timeoutMs: 30_000 });
    expect(unhandled).toEqual([]);
  }, 360_000);
});
