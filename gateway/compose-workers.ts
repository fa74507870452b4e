import type { GatewayOptions } from './compose.ts';
import type { Config } from './config.ts';
import { createControlPlane } from './control-plane.ts';
import { createDataPlane, createMemberLag, type DataPlane } from './data-plane.ts';
import type { DualWriting, RelayElsewhere } from './dual-writing.ts';
import { orUndo, type Running } from './lifecycle.ts';
import { createMember, type FromPrimary, type Member, startDual } from './member.ts';
import { createReloading } from './reloading.ts';
import { poolsOf } from './store.ts';
import { createGathered } from './telemetry/gathered.ts';
import type { Workers } from './workers/pool.ts';
import { shareOf } from './workers/share.ts';

export type PrimaryOptions = GatewayOptions & {
  readonly workers: Workers;
};

const BACKLOG_LOOK_MS = 250;

/**
 * The primary of a gateway with workers: all but the data plane. It keeps the flags and their file, answers operators, drives flips, runs relay and
 * recovery, and speaks for its workers. docs/adr/0007-workers.md says why.
 */
export const createPrimary = async (options: PrimaryOptions): Promise<Running> => {
  const { workers, config } = options;
  let dual: DualWriting | null = null;
  let stopping: Promise<number> | null = null;
  const backlog = async () => dual?.backlog() ?? null;
  const member = await createMember({
    ...options,
    pools: poolsOf('primary', workers.count),
    sources: { breaker: workers.breakers, backlog, upstreams: () => upstreams() },
    primary: null,
  });
  dual = await startDual(member, null);
  const upstreams = () => workers.upstreams(member.live().upstreams());
  const gathered = createGathered(member.metrics.registry);
  const lag = createMemberLag(member, dual);
  const reload = createReloading({
    member,
    configFile: options.configFile,
    overrides: options.overrides ?? {},
    prepare: (next) => dual?.reload(next),
    publish: workers.adopt,
  });
  const control = createControlPlane({
    member,
    config,
    version: options.version,
    dual,
    lag,
    breakers: workers.breakers,
    upstreams,
    backlog,
    registry: {
      contentType: gathered.contentType,
      async metrics() {
        await workers.scrape();
        return gathered.metrics();
      },
    },
    reload,
    draining: () => stopping !== null,
    serving: workers.serving,
    settled: workers.settled,
  });

  let told = false;
  let looking: NodeJS.Timeout | null = null;
  const tellFlags = (): void => {
    if (told) return;
    told = true;
    // one message for all flags of one snapshot
    queueMicrotask(() => {
      told = false;
      workers.tellFlags(member.flags.snapshot());
    });
  };
  const close = async (): Promise<number> => {
    const cut = await workers.stop(member.config().drain);
    if (looking) clearInterval(looking);
    await control.stopFlips();
    await dual?.stop();
    await control.stop();
    await member.close();
    return cut;
  };

  return {
    start: () =>
      orUndo(async () => {
        await member.open();
        dual?.start();
        member.flags.onChange(tellFlags);
        looking = setInterval(() => workers.tellBacklog(dual?.backlogFull() ?? false), BACKLOG_LOOK_MS);
        await control.open();
        const { url } = await control.listen();
        const gateway = await workers.start({
          hello: () => ({
            version: options.version,
            config: member.config(),
            configFile: options.configFile ?? null,
            overrides: options.overrides ?? {},
            secret: member.secret,
            flags: member.flags.snapshot(),
            backlogFull: dual?.backlogFull() ?? false,
          }),
          onMetrics: gathered.note,
          onEvidence: (batch) => void member.saveEvidence(batch),
          onWake: () => dual?.wakeRelay(),
          onGone(id) {
            gathered.left(id);
            // its commands are taken over now, not when its heartbeat expires: it is known to be dead
            member.forget(id);
          },
        });
        return { gateway, admin: url };
      }, close),
    reload,
    killAll: control.killAll,
    load: workers.load,
    stop() {
      stopping ??= close();
      return stopping;
    },
  };
};

export type WorkerOptions = Omit<GatewayOptions, 'overrides'> & {
  /** How many share the gateway's limits. */
  readonly of: number;
  readonly primary: FromPrimary;
  readonly relay: RelayElsewhere;
};

export type WorkerGateway = {
  readonly member: Member;
  readonly data: DataPlane;
  /** Gives the address of its first listener. */
  start(): Promise<string>;
  adopt(config: Config): Promise<void>;
  stop(ms: number): Promise<number>;
};

/** A worker: the data plane and nothing else. To the store it is a member like any other replica. */
export const createWorker = async (options: WorkerOptions): Promise<WorkerGateway> => {
  const config = shareOf(options.config, options.of);
  const member = await createMember({
    ...options,
    config,
    pools: poolsOf('worker', options.of),
    sources: { tunnels: () => data.tunnels() },
  });
  const dual = await startDual(member, options.relay);
  const lag = createMemberLag(member, dual);
  const data = createDataPlane({ member, config, dual, lag });
  return {
    member,
    data,
    async start() {
      await member.open();
      await data.open();
      dual?.start();
      return data.listen();
    },
    adopt: (next) =>
      member.adopt(shareOf(next, options.of), (checked) => {
        data.renew(checked);
        dual?.reload(checked);
      }),
    async stop(ms) {
      const cut = await data.drain(ms);
      await data.stop();
      await member.close();
      return cut;
    },
  };
};
