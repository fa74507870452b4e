import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { BreakerView } from '@banyan/contracts/admin-api.ts';
import type { Express } from 'express';
import type { Logger } from 'pino';
import type { Config } from './config.ts';
import { createControlPlane } from './control-plane.ts';
import { createDataPlane, createMemberLag } from './data-plane.ts';
import type { DualWriting } from './dual-writing.ts';
import { orUndo, type Running } from './lifecycle.ts';
import { createMember, startDual } from './member.ts';
import { createReloading } from './reloading.ts';
import { poolsOf } from './store.ts';

export type GatewayOptions = {
  readonly config: Config;
  /** Watched and reloaded; absent = the configuration cannot change. */
  readonly configFile?: string | undefined;
  readonly overrides?: Readonly<Record<string, unknown>>;
  readonly version: string;
  readonly log: Logger;
};

export type Gateway = Running & {
  /** For a server of somebody else's; `open` must have been called. */
  readonly handler: (req: IncomingMessage, res: ServerResponse) => void;
  readonly upgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  /** The admin API as an express application, to be mounted or listened on. */
  readonly admin: Express;
  /** Everything but the listeners: store, flags, relay. @throws AppError `store-unavailable` */
  open(): Promise<void>;
};

/** A gateway in one process. Nothing listens or connects before `start`. */
export const createGateway = async (options: GatewayOptions): Promise<Gateway> => {
  let dual: DualWriting | null = null;
  let stopping: Promise<number> | null = null;
  const breakers = (context: string): BreakerView => {
    const state = member.live().breakers.get(context)?.state ?? 'closed';
    return { state, open: state === 'closed' ? 0 : 1, of: 1 };
  };
  const backlog = async () => dual?.backlog() ?? null;
  const member = await createMember({
    ...options,
    pools: poolsOf('whole', 1),
    sources: { breaker: breakers, backlog, tunnels: () => plane.tunnels(), upstreams: () => plane.upstreams() },
    primary: null,
  });
  const { config } = options;
  dual = await startDual(member, null);
  const lag = createMemberLag(member, dual);
  const plane = createDataPlane({ member, config, dual, lag });
  const reload = createReloading({
    member,
    configFile: options.configFile,
    overrides: options.overrides ?? {},
    prepare(next) {
      plane.renew(next);
      dual?.reload(next);
    },
    publish: async () => [],
  });
  const control = createControlPlane({
    member,
    config,
    version: options.version,
    dual,
    lag,
    breakers,
    upstreams: plane.upstreams,
    backlog,
    registry: member.metrics.registry,
    reload,
    draining: () => stopping !== null,
    serving: () => ({ listening: plane.listening() ? 1 : 0, of: 1 }),
    settled: async () => undefined,
  });

  const close = async (): Promise<number> => {
    const cut = await plane.drain(member.config().drain);
    await control.stopFlips();
    await plane.stop();
    // last, so that whoever watches the drain sees its end
    await control.stop();
    await member.close();
    return cut;
  };
  const open = (): Promise<void> =>
    orUndo(async () => {
      await member.open();
      await plane.open();
      dual?.start();
      await control.open();
    }, close);

  return {
    handler: plane.handler,
    upgrade: plane.upgrade,
    admin: control.admin,
    open,
    async start() {
      await open();
      return orUndo(async () => {
        const gateway = await plane.listen();
        const { url } = await control.listen();
        return { gateway, admin: url };
      }, close);
    },
    reload,
    killAll: control.killAll,
    load: plane.load,
    stop() {
      stopping ??= close();
      return stopping;
    },
  };
};
