import { afterEach, describe, expect, it } from '@jest/globals';
import { type RawConnection, statusOf } from '../harness/raw-http.ts';
import { openRig, type Rig } from './proxy-rig.ts';

let rig: Rig | undefined;
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
});

const upgradeTo = (protocol: string): string => `GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`;
const switchTo = (protocol: string): string => `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`;

type Ends = { client: RawConnection; upstream: RawConnection; rig: Rig };

const openTunnel = async (protocol = 'websocket'): Promise<Ends> => {
  let stand: (connection: RawConnection) => void = () => {};
  const standing = new Promise<RawConnection>((resolve) => {
    stand = resolve;
  });
  const opened = await openRig(async (connection) => {
    await connection.head();
    connection.write(switchTo(protocol));
    stand(connection);
    await connection.closed;
  });
  rig = opened;
  const client = (await opened.client()).write(upgradeTo(protocol));
  expect(statusOf(await client.message())).toBe(101);
  return { client, upstream: await standing, rig: opened };
};

const FAREWELL = Buffer.from('\x88\x1e\x03\xe9the gateway is shutting down', 'latin1');
const closed = Buffer.from([0x88, 0x02, 0x03, 0xe9]);
/** A client's frames are masked; a mask of zeros changes nothing. */
const masked = (frame: Buffer): Buffer =>
  Buffer.concat([frame.subarray(0, 1), Buffer.from([frame[1]! | 0x80, 0, 0, 0, 0]), frame.subarray(2)]);

/** Reads one masked frame of less than 126 bytes and unmasks it. */
const unmasked = async (connection: RawConnection): Promise<Buffer> => {
  const head = await connection.bytes(6);
  expect(head[1]! & 0x80).toBe(0x80);
  const payload = await connection.bytes(head[1]! & 0x7f);
  return Buffer.concat([Buffer.from([head[0]!, payload.length]), payload.map((byte, i) => byte ^ head[2 + (i % 4)]!)]);
};

describe('a WebSocket when the gateway drains', () => {
  it('gets Close 1001 both ways, masked only to the upstream, and ends as soon as both have answered', async () => {
    const { client, upstream, rig } = await openTunnel();
    const drained = rig.upgrader.drain(60_000, 60_000);
    expect(await client.bytes(FAREWELL.length)).toEqual(FAREWELL);
    expect(await unmasked(upstream)).toEqual(FAREWELL);
    client.write(masked(closed));
    expect(await client.rest()).toBe('');
    upstream.write(closed);
    expect(await upstream.rest()).toBe('');
    client.end();
    upstream.end();
    await drained;
    expect(rig.tunnelled).toEqual([{ end: 'drained', bytesUp: 0, bytesDown: 0 }]);
  });

  it('ends after the time for the answers when nobody answers', async () => {
    const { client, upstream, rig } = await openTunnel();
    const drained = rig.upgrader.drain(50, 60_000);
    await drained;
    expect(Buffer.from(await client.rest(), 'latin1')).toEqual(FAREWELL);
    expect(await upstream.rest()).toHaveLength(FAREWELL.length + 4);
  });

  it('gets it behind the frame that is under way, and nothing after', async () => {
    const { client, upstream, rig } = await openTunnel();
    const message = Buffer.concat([Buffer.from([0x82, 126, 0x01, 0x00]), Buffer.alloc(256, 7)]);
    upstream.write(message.subarray(0, 3));
    expect(await client.bytes(3)).toEqual(message.subarray(0, 3));
    const drained = rig.upgrader.drain(60_000, 60_000);
    // the other direction stands at a boundary
    expect(await unmasked(upstream)).toEqual(FAREWELL);
    expect(client.pending).toBe('');
    upstream.write(Buffer.concat([message.subarray(3), Buffer.from([0x81, 1, 0x61]), closed]));
    expect(await client.bytes(message.length - 3)).toEqual(message.subarray(3));
    expect(await client.bytes(FAREWELL.length)).toEqual(FAREWELL);
    expect(await upstream.rest()).toBe('');
    client.write(masked(closed));
    expect(await client.rest()).toBe('');
    client.end();
    upstream.end();
    await drained;
    expect(rig.tunnelled).toEqual([{ end: 'drained', bytesUp: 0, bytesDown: message.length }]);
  });

  it('gets it between the fragments of a message', async () => {
    const { client, upstream, rig } = await openTunnel();
    const fragment = masked(Buffer.from([0x01, 1, 0x61]));
    client.write(fragment);
    expect(await upstream.bytes(fragment.length)).toEqual(fragment);
    const drained = rig.upgrader.drain(20, 60_000);
    expect(await unmasked(upstream)).toEqual(FAREWELL);
    await drained;
  });

  it('with a frame that never ends is cut off at the limit', async () => {
    const { client, upstream, rig } = await openTunnel();
    upstream.write(Buffer.from([0x82, 127, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1]));
    await client.bytes(11);
    await rig.upgrader.drain(50, 300);
    expect(await client.rest()).toBe('');
  });

  it('that is being closed already gets no second Close', async () => {
    const { client, upstream, rig } = await openTunnel();
    upstream.write(closed);
    expect(await client.bytes(closed.length)).toEqual(closed);
    const drained = rig.upgrader.drain(50, 60_000);
    client.write(masked(closed));
    expect(await upstream.bytes(closed.length + 4)).toEqual(masked(closed));
    upstream.end();
    expect(await client.rest()).toBe('');
    client.end();
    await drained;
    expect(rig.tunnelled[0]!.end).toBe('drained');
  });

  it('that opens only then is closed at once', async () => {
    let answer: () => void = () => {};
    const asked = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const opened = await openRig(async (connection) => {
      await connection.head();
      await asked;
      connection.write(switchTo('websocket'));
      await connection.closed;
    });
    rig = opened;
    const client = (await opened.client()).write(upgradeTo('websocket'));
    while (opened.server.connections.length === 0) await new Promise(setImmediate);
    void opened.upgrader.drain(50, 60_000);
    answer();
    expect(statusOf(await client.message())).toBe(101);
    expect(Buffer.from(await client.rest(), 'latin1')).toEqual(FAREWELL);
  });
});

describe('a tunnel of another protocol when the gateway drains', () => {
  it('gets a FIN on both sides and no byte, and is gone when they have answered it', async () => {
    const { client, upstream, rig } = await openTunnel('tcp');
    client.write('some');
    expect((await upstream.bytes(4)).toString()).toBe('some');
    const drained = rig.upgrader.drain(60_000, 60_000);
    expect(await Promise.all([client.rest(), upstream.rest()])).toEqual(['', '']);
    client.end();
    upstream.end();
    await drained;
  });

  it('is destroyed at the limit when they do not', async () => {
    const { client, upstream, rig } = await openTunnel('tcp');
    await rig.upgrader.drain(50, 100);
    expect(await Promise.all([client.rest(), upstream.rest()])).toEqual(['', '']);
    expect(rig.listener.tunnels).toBe(0);
  });
});
