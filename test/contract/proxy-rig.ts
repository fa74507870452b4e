import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { AppError } from '@banyan/contracts/errors.ts';
import { prepare } from '../../gateway/proxy/call.ts';
import type { TlsOptions } from '../../gateway/proxy/connect.ts';
import { createListener, type Listener } from '../../gateway/proxy/listener.ts';
import { sendProblem } from '../../gateway/proxy/problem.ts';
import { refuseRaw } from '../../gateway/proxy/refuse-raw.ts';
import { type Delivered, type ReplyOptions, reply } from '../../gateway/proxy/reply.ts';
import type { CertificateSource } from '../../gateway/proxy/tls.ts';
import type { TunnelReport } from '../../gateway/proxy/tunnel.ts';
import { createUpgrader, type Upgrader } from '../../gateway/proxy/upgrade.ts';
import { createUpstream, type Upstream } from '../../gateway/proxy/upstream.ts';
import { type RawConnection, type RawMessage, type RawServer, rawConnect, rawServer } from '../harness/raw-http.ts';
import { type RawHttp2, rawHttp2 } from '../harness/raw-http2.ts';

export type RigOptions = {
  trusted?: (address: string) => boolean;
  hostHeader?: 'preserve' | 'upstream';
  timeouts?: { connectMs?: number; responseMs?: number; idleMs?: number };
  limits?: Partial<Parameters<typeof createListener>[0]['limits']>;
  reply?: ReplyOptions;
  /** Instead of a raw server's. */
  url?: string;
  tls?: TlsOptions;
  halfClosedMs?: number;
  /** Of the listener. */
  http2?: boolean;
  certificates?: readonly CertificateSource[];
  /** Instead of one made of the options above. */
  upstream?: Upstream;
};

/** The smallest pipeline: prepare, forward, reply, with a raw server behind and raw sockets in front. */
export type Rig = {
  readonly listener: Listener;
  readonly upstream: Upstream;
  readonly server: RawServer;
  readonly port: number;
  readonly delivered: Delivered[];
  readonly errors: AppError[];
  readonly upgradeFailures: AppError[];
  readonly upgrader: Upgrader;
  /** Tunnels that have ended. */
  readonly tunnelled: TunnelReport[];
  /** A new client connection; destroyed with the rig. */
  client(): Promise<RawConnection>;
  /** The same by HTTP/2, frame by frame; nothing has been sent yet. */
  http2(): Promise<RawHttp2>;
  /** Sends bytes on a new connection and reads one final answer. */
  ask(bytes: string, options?: { head?: boolean }): Promise<RawMessage>;
  stop(): Promise<void>;
};

/** Answers every request of a connection with what `answer` gives; null = the script wrote itself. */
export const answering =
  (answer: (request: RawMessage, connection: RawConnection) => string | null | Promise<string | null>) =>
  async (connection: RawConnection): Promise<void> => {
    for (;;) {
      const request = await connection.message();
      const bytes = await answer(request, connection);
      if (bytes !== null) connection.write(bytes);
    }
  };

export const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

export const openRig = async (
  script: (connection: RawConnection, index: number) => Promise<void>,
  options: RigOptions = {},
): Promise<Rig> => {
  const server = await rawServer(script);
  const url = options.url ?? server.url;
  const trusted = options.trusted ?? (() => false);
  const hostHeader = options.hostHeader ?? 'preserve';
  const timeouts = { connectMs: 20_000, responseMs: 20_000, idleMs: 20_000, ...options.timeouts };
  const upstream = options.upstream ?? createUpstream({ name: 'legacy', urls: [url], tls: options.tls ?? null, timeouts, hostHeader });
  const delivered: Delivered[] = [];
  const errors: AppError[] = [];
  const upgradeFailures: AppError[] = [];
  const upgrader = createUpgrader(options.halfClosedMs === undefined ? {} : { halfClosedMs: options.halfClosedMs });
  const tunnelled: TunnelReport[] = [];
  const upgrade = async (req: IncomingMessage, socket: Socket, head: Buffer): Promise<void> => {
    try {
      const carried = await upgrader.carry(prepare(req, null, { trusted }), req, socket, head, await upstream.stand());
      if ('tunnel' in carried) carried.tunnel.onEnd = (report) => tunnelled.push(report);
      else delivered.push(await carried.delivered);
    } catch (error) {
      upgradeFailures.push(error as AppError);
      if (!socket.writableEnded) refuseRaw(socket, error as AppError);
    }
  };
  const listener = createListener({
    handler: async (req, res) => {
      try {
        const call = prepare(req, res, { trusted });
        const answer = await upstream.forward(call);
        delivered.push(await reply(res, answer, options.reply));
      } catch (error) {
        errors.push(error as AppError);
        sendProblem(req, res, error);
      }
    },
    upgrade: (req, socket, head) => void upgrade(req, socket, head),
    http2: options.http2 ?? false,
    certificates: options.certificates ?? [],
    limits: {
      headerTimeoutMs: 20_000,
      idleTimeoutMs: 20_000,
      maxHeaderBytes: 64 * 1024,
      maxConnections: 1_000,
      maxStreams: 128,
      ...options.limits,
    },
  });
  const { port } = await listener.listen('127.0.0.1', 0);
  const clients: { destroy(): void }[] = [];
  const client = async (): Promise<RawConnection> => {
    const connection = await rawConnect(port);
    clients.push(connection);
    return connection;
  };
  return {
    listener,
    upstream,
    server,
    port,
    delivered,
    errors,
    upgradeFailures,
    upgrader,
    tunnelled,
    client,
    http2: async () => {
      const connection = await rawHttp2(port);
      clients.push(connection);
      return connection;
    },
    ask: async (bytes, messageOptions) => (await client()).write(bytes).answer(messageOptions),
    stop: async () => {
      for (const connection of clients) connection.destroy();
      const drained = listener.drain(0);
      await upstream.stop();
      upgrader.stop();
      await server.close();
      await drained;
    },
  };
};
