import { randomUUID } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { AppError } from '@banyan/contracts/errors.ts';
import { STAGES, UPSTREAMS } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { z } from 'zod';
import { FLAG_CHANNEL, type FlagSeed, type KillBy, killOnce, loadFlags, type StoredFlag, seedFlags, tidyFlags } from './flag-store.ts';
import type { Listener } from './listener.ts';

export type FlagsDeps = {
  /** null = no store: flags come from the file, kill is local, nothing else changes. */
  readonly db: Knex | null;
  readonly listener: Listener | null;
  readonly memberId: string;
  readonly memberName: string;
  readonly seeds: readonly FlagSeed[];
  /** Last-known-good and local kills are kept here; null = nowhere. */
  readonly stateFile: string | null;
  /** Of a worker: what its primary serves now. The primary alone seeds the store, keeps the file and merges kills; `follow` tells of changes. */
  readonly primary?: FlagsSnapshot | undefined;
  readonly pollMs?: number;
  readonly heartbeatMs?: number;
  readonly now: () => number;
  readonly log: Logger;
};

/** What a primary tells its workers. */
export type FlagsSnapshot = {
  readonly flags: readonly StoredFlag[];
  /** Contexts killed here that the store has not heard of yet. */
  readonly kills: readonly string[];
};

/** The in-memory copy that requests read, and the heartbeat that tells other processes which version it serves. */
export type Flags = {
  /** Is there a last known state on disk to start from without the store? */
  known(): Promise<boolean>;
  start(): Promise<void>;
  stop(): Promise<void>;
  current(context: string): StoredFlag | undefined;
  all(): StoredFlag[];
  /** Milliseconds since the snapshot was last known to be the store's; Infinity before the first load. Without a store 0. */
  ageMs(): number;
  /** Reads the store now; used after a change made here. */
  refresh(): Promise<void>;
  /** Resolves when the context is not frozen, or after `timeoutMs` with false. */
  thawed(context: string, timeoutMs: number): Promise<boolean>;
  /** A reload brought contexts that may be new. */
  reseed(seeds: readonly FlagSeed[]): Promise<void>;
  /** Kills without the store: kept on disk with who asked and why, merged into every later snapshot until the store has it. */
  killLocally(contexts: readonly string[], by: KillBy): Promise<void>;
  pendingKills(): string[];
  snapshot(): FlagsSnapshot;
  /** Takes over what the primary serves: its kills at once; the rest too without a store, else by reading the store. Rejects when that does not answer. */
  follow(snapshot: FlagsSnapshot): Promise<void>;
  onChange(listener: (flag: StoredFlag, before: StoredFlag | undefined) => void): () => void;
};

const killSchema = z.object({ name: z.string(), id: z.uuid().default(() => randomUUID()), actor: z.string(), reason: z.string() });
type LocalKill = z.output<typeof killSchema>;

const savedSchema = z.object({
  flags: z.array(
    z.object({
      name: z.string(),
      group: z.string().nullable(),
      stage: z.enum(STAGES),
      canaryShareBp: z.number().int().min(0).max(10_000),
      killed: z.boolean(),
      frozen: z.boolean(),
      frozenBy: z.string().nullable(),
      owner: z.enum(UPSTREAMS),
      epoch: z.number().int(),
      version: z.number().int(),
      since: z.iso.datetime(),
      updatedAt: z.iso.datetime(),
      updatedBy: z.string(),
    }),
  ),
  kills: z.array(killSchema),
});
type Saved = z.output<typeof savedSchema>;

/** What a look at the flags and a heartbeat may take. */
const STORE_MS = 3_000;

const fromSeed = (seed: FlagSeed): StoredFlag => ({
  name: seed.name,
  group: seed.group,
  // a file cannot say who owns the writes
  stage: seed.stage === 'cutover' || seed.stage === 'retired' ? 'legacy' : seed.stage,
  canaryShareBp: seed.canaryShareBp,
  killed: false,
  frozen: false,
  frozenBy: null,
  owner: 'legacy',
  epoch: 1,
  version: 0,
  since: new Date(0),
  updatedAt: new Date(0),
  updatedBy: 'config',
});

export const createFlags = (deps: FlagsDeps): Flags => {
  const { db, log, now } = deps;
  let flags = new Map<string, StoredFlag>();
  let freshAt = Number.NEGATIVE_INFINITY;
  let kills = new Map<string, LocalKill>();
  /** The primary's kills, and those of them that the store has by now: the next reading may lift them. */
  const toldKills = new Set(deps.primary?.kills);
  const liftable = new Set<string>();
  let stopped = false;
  let refreshing: Promise<void> | null = null;
  let queued: Promise<void> | null = null;
  let seeded = false;
  let { seeds } = deps;
  let lastKnown: Saved['flags'] = [];
  const timers: NodeJS.Timeout[] = [];
  const listeners = new Set<(flag: StoredFlag, before: StoredFlag | undefined) => void>();
  let unlisten: (() => void) | null = null;
  let saving: Promise<void> = Promise.resolve();

  const save = (): void => {
    const file = deps.stateFile;
    if (!file) return;
    const text = JSON.stringify({ flags: [...flags.values()], kills: [...kills.values()] });
    saving = saving
      .then(() => writeFile(`${file}.${process.pid}.tmp`, text, { mode: 0o600 }))
      .then(() => rename(`${file}.${process.pid}.tmp`, file))
      .catch((error) => log.warn({ err: error }, 'cannot keep the last known flags on disk'));
  };

  const adopt = (loaded: readonly StoredFlag[]): void => {
    const next = new Map(
      loaded.map((flag) => [flag.name, kills.has(flag.name) || toldKills.has(flag.name) ? { ...flag, killed: true } : flag]),
    );
    const before = flags;
    flags = next;
    let changed = before.size !== next.size;
    for (const flag of next.values()) {
      const old = before.get(flag.name);
      if (old && old.version === flag.version && old.killed === flag.killed) continue;
      changed = true;
      for (const listener of listeners) listener(flag, old);
    }
    if (changed) save();
  };

  const beat = async (): Promise<void> => {
    if (!db) return;
    const seen = Object.fromEntries([...flags.values()].map((flag) => [flag.name, flag.version]));
    await db
      .raw(
        `insert into banyan.member (id, name, seen) values (?, ?, ?::jsonb)
         on conflict (id) do update set heartbeat_at = now(), seen = excluded.seen`,
        [deps.memberId, deps.memberName, JSON.stringify(seen)],
      )
      .timeout(STORE_MS);
  };

  /** Kills made while the store was away win as soon as it is back, unless the store has heard of the same from another gateway. */
  const mergeKills = async (): Promise<void> => {
    if (!db || kills.size === 0) return;
    // in the order in which every change locks the flags
    const merged = [...kills.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    await db.transaction(async (trx) => {
      for (const { name, ...by } of merged) await killOnce(trx, [name], by, ' (while the store was away)');
    });
    // one that was asked for again meanwhile is written by the next merge
    for (const kill of merged) if (kills.get(kill.name) === kill) kills.delete(kill.name);
    save();
  };

  /** Until the store has been reached once, its rows may be missing: a start without the store must not leave them so. */
  const seed = async (): Promise<void> => {
    if (!db || seeded || deps.primary) return;
    const further = new Set(lastKnown.filter((flag) => flag.stage === 'cutover' || flag.stage === 'retired').map((flag) => flag.name));
    const refused = await seedFlags(db, seeds, further);
    seeded = true;
    for (const name of refused)
      log.warn(
        { context: name },
        'the store does not know this context, and the file or the last known flags say cutover or retired: its commands get 503',
      );
  };

  const load = async (): Promise<void> => {
    if (!db) return;
    await seed();
    await mergeKills();
    const startedAt = now();
    const before = flags;
    const lifted = [...liftable];
    const loaded = await loadFlags(db, STORE_MS);
    for (const name of lifted) {
      if (liftable.delete(name)) toldKills.delete(name);
    }
    freshAt = startedAt;
    adopt(loaded);
    const moved = loaded.some((flag) => before.get(flag.name)?.version !== flag.version);
    if (moved) await beat();
  };

  /** Never two loads at once; a request that comes during one is served by the one load that begins after it. */
  const refresh = (): Promise<void> => {
    if (refreshing === null) {
      refreshing = load().finally(() => {
        refreshing = null;
      });
      return refreshing;
    }
    queued ??= refreshing
      .catch(() => undefined)
      .then(() => {
        queued = null;
        return refresh();
      });
    return queued;
  };

  const quietly = (work: () => Promise<void>, what: string): void => {
    work().catch((error) => {
      if (!stopped) log.warn({ err: error }, what);
    });
  };

  const readSaved = async (): Promise<Saved | null> => {
    if (!deps.stateFile) return null;
    try {
      return savedSchema.parse(JSON.parse(await readFile(deps.stateFile, 'utf8')));
    } catch (error) {
      // no file is an ordinary first start; a broken one must be heard of, since kills may be in it
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        log.warn({ err: error, file: deps.stateFile }, 'the last known flags cannot be read');
      return null;
    }
  };

  return {
    known: async () => ((await readSaved())?.flags.length ?? 0) > 0,
    async start() {
      const saved = await readSaved();
      kills = new Map((saved?.kills ?? []).map((kill) => [kill.name, kill]));
      lastKnown = saved?.flags ?? [];
      if (!db) {
        adopt(deps.primary?.flags ?? seeds.map(fromSeed));
        return;
      }
      try {
        await load();
        await beat();
        await tidyFlags(db);
      } catch (error) {
        const known = new Map(lastKnown.map((flag) => [flag.name, flag]));
        adopt(
          deps.primary?.flags ??
            seeds.map((seed) => {
              const flag = known.get(seed.name);
              return flag ? { ...flag, since: new Date(flag.since), updatedAt: new Date(flag.updatedAt) } : fromSeed(seed);
            }),
        );
        log.warn(
          { err: error, from: deps.primary ? 'primary' : known.size > 0 ? 'disk' : 'file' },
          'the store does not answer: serving the last known flags',
        );
      }
      unlisten = deps.listener?.on(FLAG_CHANNEL, () => quietly(refresh, 'flags could not be read')) ?? null;
      timers.push(setInterval(() => quietly(refresh, 'flags could not be read'), deps.pollMs ?? 500));
      timers.push(setInterval(() => quietly(beat, 'heartbeat failed'), deps.heartbeatMs ?? 1000));
    },
    async reseed(next) {
      seeds = next;
      seeded = false;
      if (db) await refresh();
      else adopt(seeds.map((seed) => flags.get(seed.name) ?? fromSeed(seed)));
    },
    async stop() {
      stopped = true;
      for (const timer of timers) clearInterval(timer);
      unlisten?.();
      await queued?.catch(() => undefined);
      await refreshing?.catch(() => undefined);
      await saving;
      if (db)
        await db('banyan.member')
          .where({ id: deps.memberId })
          .delete()
          .catch(() => undefined);
    },
    current: (context) => flags.get(context),
    all: () => [...flags.values()],
    ageMs: () => (db ? now() - freshAt : 0),
    refresh,
    thawed: (context, timeoutMs) => {
      const isThawed = () => !flags.get(context)?.frozen;
      if (isThawed()) return Promise.resolve(true);
      return new Promise((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          listeners.delete(check);
          resolve(isThawed());
        };
        const check = (): void => {
          // listeners run while the new snapshot is being adopted: look once it is in place
          queueMicrotask(() => {
            if (isThawed()) done();
          });
        };
        const timer = setTimeout(done, timeoutMs);
        listeners.add(check);
      });
    },
    async killLocally(contexts, { id, actor, reason }) {
      for (const name of contexts) {
        if (!flags.has(name)) throw new AppError('not-found', `no context is called ${name}`);
        kills.set(name, { name, id, actor, reason });
      }
      adopt([...flags.values()]);
      save();
      await saving;
    },
    pendingKills: () => [...kills.keys()],
    snapshot: () => ({ flags: [...flags.values()], kills: [...kills.keys()] }),
    async follow(snapshot) {
      const now = new Set(snapshot.kills);
      for (const name of toldKills) if (!now.has(name)) liftable.add(name);
      for (const name of now) {
        toldKills.add(name);
        liftable.delete(name);
      }
      if (!db) {
        for (const name of liftable) toldKills.delete(name);
        liftable.clear();
        adopt(snapshot.flags);
        return;
      }
      adopt([...flags.values()]);
      const behind = snapshot.flags.some((flag) => flag.version > (flags.get(flag.name)?.version ?? -1));
      if (behind || liftable.size > 0) await refresh();
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
};
