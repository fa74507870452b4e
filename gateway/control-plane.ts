import { randomUUID } from 'node:crypto';
import type { BacklogView, BreakerView } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Express } from 'express';
import { createAdmin } from './admin/admin.ts';
import { createAuditStore } from './admin/audit-store.ts';
import { tellPeers } from './admin/peers.ts';
import type { AdminDeps } from './admin/ports.ts';
import { createStoreView } from './admin/store-view.ts';
import { type Config, environment } from './config.ts';
import type { DualWriting } from './dual-writing.ts';
import { createFlips } from './flags/flips.ts';
import { createMoves } from './flags/moves.ts';
import type { LagWatch } from './lag-watch.ts';
import { cutoverObstacles } from './live.ts';
import { createLocalKill, type LocalKill } from './local-kill.ts';
import type { Member } from './member.ts';
import { createRamping } from './ramping.ts';
import { parityPort } from './shadowing.ts';
import { createSideSums } from './side-sums.ts';

export type ControlPlaneDeps = {
  readonly member: Member;
  /** Whose `flags.maxStale` counts for as long as the process lives. */
  readonly config: Config;
  readonly version: string;
  readonly dual: DualWriting | null;
  readonly lag: LagWatch;
  readonly breakers: (context: string) => BreakerView;
  readonly upstreams: AdminDeps['upstreams'];
  readonly backlog: () => Promise<BacklogView | null>;
  readonly registry: AdminDeps['registry'];
  readonly reload: AdminDeps['reload'];
  readonly draining: AdminDeps['draining'];
  readonly serving: AdminDeps['serving'];
  /** Resolves when everybody who serves requests here serves the present flags, or a second later. */
  readonly settled: () => Promise<void>;
};

/** What operators reach, and the hand-over of writes that they ask for. */
export type ControlPlane = {
  readonly admin: Express;
  readonly killAll: LocalKill['killAll'];
  /** Obeys the kill file, undoes flips whose driver died, and looks at ramps. */
  open(): Promise<void>;
  listen(): Promise<{ url: string }>;
  /** No further flip, those under way are undone; no further step of a ramp. */
  stopFlips(): Promise<void>;
  stop(): Promise<void>;
};

const FLIP_RECOVERY_MS = 1000;

export const createControlPlane = (deps: ControlPlaneDeps): ControlPlane => {
  const { member, dual } = deps;
  const { flags, log, config } = member;
  const db = member.store?.db ?? null;
  const adapterToken = environment('BANYAN_ADAPTER_TOKEN') ?? null;
  const flips =
    db && dual
      ? createFlips({
          db,
          flags,
          memberId: member.id,
          maxStaleMs: deps.config.flags.maxStale,
          unresolved: dual.unresolved,
          inFlight: dual.inFlight,
          watermark: (context, into, timeoutMs) =>
            deps.lag.watermark({ context, into, timeoutMs, db, adapterUrl: config().adapter.url, adapterToken }),
          levels: createSideSums({ db, live: member.live, adapterToken }),
          log,
          now: () => performance.now(),
        })
      : null;
  const moves = createMoves({
    db,
    flags,
    flips,
    approvals: () => config().admin.approvals,
    contextOf: (name) => {
      const context = config().contexts[name];
      return context && { firstShareBp: context.ramp.steps[0] ?? 100, cutoverObstacles: cutoverObstacles(config(), name) };
    },
  });
  const ramping = db ? createRamping({ member, db, moves, stale: deps.lag.stale }) : null;
  const settled = async <T>(move: Promise<T>): Promise<T> => {
    const moved = await move;
    await deps.settled();
    return moved;
  };
  const localKill = createLocalKill({
    file: member.killFile,
    flags,
    kill: async (contexts, by, path) => {
      const kill = { ...by, id: randomUUID() };
      await settled(moves.kill(contexts, kill));
      const { peers, tokens } = config().admin;
      // peers share the tokens of the configuration, if anybody does
      const token = tokens.find(({ role }) => role !== 'viewer')?.token;
      if (peers.length > 0) await tellPeers(peers, path, kill, token === undefined ? undefined : `Bearer ${token}`, log);
    },
    log,
  });
  /** What the file names would be killed again at once. */
  const refuseHeld = (contexts: readonly string[]): void => {
    const groups = new Set(contexts.map((name) => flags.current(name)?.group).filter((group) => group != null));
    const all = flags.all().filter(({ name, group }) => contexts.includes(name) || (group !== null && groups.has(group)));
    const held = localKill.named(all.map(({ name }) => name));
    if (held.length > 0)
      throw new AppError('conflict', `the file ${member.killFile} on this machine kills ${held.join(', ')}: remove it first`);
  };
  const admin = createAdmin({
    version: deps.version,
    config,
    reload: deps.reload,
    draining: deps.draining,
    serving: deps.serving,
    flags,
    moves: {
      stage: (context, request) => settled(moves.stage(context, request)),
      kill: (contexts, request) => settled(moves.kill(contexts, request)),
      revive: async (contexts, request) => {
        refuseHeld(contexts);
        return settled(moves.revive(contexts, request));
      },
    },
    flips,
    ramp: ramping && { ...ramping.actions, act: (context, request) => settled(ramping.actions.act(context, request)) },
    parity: member.hasContexts ? parityPort(member.evidence, member.live) : null,
    ledger: dual?.port ?? null,
    audit: db ? createAuditStore(db) : null,
    store: db ? createStoreView(db, () => config().flags.maxStale) : null,
    upstreams: deps.upstreams,
    breakers: deps.breakers,
    backlog: deps.backlog,
    registry: deps.registry,
    adapterToken,
    serviceToken: environment('BANYAN_SERVICE_TOKEN') || null,
    now: () => Date.now(),
    log,
  });
  let recovering: NodeJS.Timeout | null = null;

  return {
    admin: admin.handler,
    killAll: localKill.killAll,
    async open() {
      await localKill.start();
      // whoever leads the ramp asks; where there is a data plane it runs already
      deps.lag.start();
      ramping?.start();
      if (flips)
        recovering = setInterval(
          () => void flips.recover().catch((error) => log.warn({ err: error }, 'flips could not be looked at')),
          FLIP_RECOVERY_MS,
        );
    },
    listen: admin.start,
    async stopFlips() {
      if (recovering) clearInterval(recovering);
      deps.lag.stop();
      await localKill.stop();
      await ramping?.stop();
      await flips?.stop();
    },
    stop: admin.stop,
  };
};
