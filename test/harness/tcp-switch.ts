import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A TCP hop on loopback that can be broken the two ways a server breaks. */
export type TcpSwitch = {
  readonly port: number;
  /** Connections end, new ones are refused: the server died. */
  cut(): void;
  /** Connections stand and nothing moves any more, also on new ones: the server hangs. */
  hang(): void;
  /** Chunks that came from the near side since it hangs: questions that nobody will answer. */
  swallowed(): number;
  /** Heals both. What stood before is not revived. */
  heal(): Promise<void>;
  stop(): Promise<void>;
};

/** Puts a hop in front of `host:port`. */
export const tcpSwitch = async (target: { host: string; port: number }): Promise<TcpSwitch> => {
  const sockets = new Set<Socket>();
  let hanging = false;
  let swallowed = 0;
  const keep = (socket: Socket): void => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => sockets.delete(socket));
  };
  const server = createServer((near) => {
    keep(near);
    if (hanging) return;
    const far = connect(target);
    keep(far);
    near.on('data', (data) => {
      if (hanging) swallowed += 1;
      else far.write(data);
    });
    far.on('data', (data) => hanging || near.write(data));
    near.once('close', () => far.destroy());
    far.once('close', () => hanging || near.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const cut = (): void => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return {
    port,
    cut,
    hang: () => {
      hanging = true;
      swallowed = 0;
    },
    swallowed: () => swallowed,
    heal: async () => {
      hanging = false;
      if (server.listening) return;
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
    },
    stop: async () => {
      const closed = server.listening ? once(server, 'close') : Promise.resolve();
      cut();
      await closed;
    },
  };
};

/** `url` with another port on loopback. */
export const throughPort = (url: string, port: number): string =>
  Object.assign(new URL(url), { hostname: '127.0.0.1', port: String(port) }).href;
