import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Flags } from './flags/flags.ts';

export type LocalKillDeps = {
  /** Looked at all the time; null = nowhere to look. */
  readonly file: string | null;
  readonly flags: Pick<Flags, 'all'>;
  /** @param path of the admin API that does the same at a peer */
  readonly kill: (contexts: readonly string[], by: { readonly actor: string; readonly reason: string }, path: string) => Promise<unknown>;
  readonly log: Logger;
  readonly lookMs?: number;
};

export type LocalKill = {
  /** Resolves when the file has been obeyed once, so that no request is served before. */
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Every context that is not retired. */
  killAll(by: { readonly actor: string; readonly reason: string }): Promise<void>;
  /** Those of `contexts` that the file names now: they cannot be revived. */
  named(contexts: readonly string[]): string[];
};

const LOOK_MS = 250;
const MAX_BYTES = 65_536;
const REASON_MAX = 900;

type Wish = { readonly context: string; readonly reason: string };

/**
 * Pure. A line is a context's name, or `*` for all, and after a space why; `#` begins a comment. A file with nothing else in it means all:
 * `touch` is enough.
 */
export const readKillFile = (text: string): Wish[] => {
  const lines = text
    .slice(0, MAX_BYTES)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (lines.length === 0) return [{ context: '*', reason: '' }];
  return lines.map((line) => {
    const [, context = '', reason = ''] = /^(\S+)\s*(.*)$/.exec(line) ?? [];
    return { context, reason: reason.slice(0, REASON_MAX) };
  });
};

const wishesIn = async (path: string): Promise<Wish[]> => {
  try {
    return readKillFile(await readFile(path, 'utf8'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    // put there by somebody who means it, only not for our eyes; anything else is our own trouble and says nothing
    if (code === 'EACCES' || code === 'EISDIR') return [{ context: '*', reason: `it cannot be read (${code})` }];
    throw error;
  }
};

/**
 * Kill for whoever stands at the machine and can reach nothing else: a file, and (in `main.ts`) a signal. The file holds for as long as it is
 * there: what it names is killed at the start, after a revive, and when it appears.
 */
export const createLocalKill = (deps: LocalKillDeps): LocalKill => {
  const { file, flags, log } = deps;
  const stopping = new AbortController();
  let wishes: readonly Wish[] = [];
  let told = '';
  let looking: Promise<void> | null = null;

  const killable = () => flags.all().filter((flag) => flag.stage !== 'retired');

  const killAll: LocalKill['killAll'] = async (by) => {
    const names = killable().map((flag) => flag.name);
    if (names.length > 0) await deps.kill(names, by, '/api/v1/kill');
  };

  const look = async (path: string): Promise<void> => {
    wishes = await wishesIn(path);
    const known = killable();
    const unknown = wishes.filter(({ context }) => context !== '*' && !flags.all().some((flag) => flag.name === context));
    const strange = unknown.map(({ context }) => context).join(', ');
    if (strange !== told && strange !== '') log.error({ file: path }, `the kill file names no such context: ${strange}`);
    told = strange;
    const by = (reason: string) => ({ actor: 'file', reason: `${path}${reason === '' ? '' : `: ${reason}`}`.slice(0, 1_000) });
    const all = wishes.find(({ context }) => context === '*');
    if (all) {
      if (known.some((flag) => !flag.killed)) await killAll(by(all.reason));
      return;
    }
    for (const { context, reason } of wishes)
      if (known.some((flag) => flag.name === context && !flag.killed))
        await deps.kill([context], by(reason), `/api/v1/contexts/${encodeURIComponent(context)}/kill`);
  };

  const obey = (path: string): Promise<void> =>
    look(path).catch((error) => log.error({ err: error, file: path }, 'the kill file could not be obeyed; it is tried again'));
  const watch = async (path: string): Promise<void> => {
    while (!stopping.signal.aborted) {
      await sleep(deps.lookMs ?? LOOK_MS, undefined, { signal: stopping.signal, ref: false }).catch(() => undefined);
      if (!stopping.signal.aborted) await obey(path);
    }
  };

  return {
    async start() {
      if (file === null || looking !== null) return;
      await obey(file);
      looking = watch(file);
    },
    async stop() {
      stopping.abort();
      await looking;
    },
    killAll,
    named: (contexts) => contexts.filter((name) => wishes.some(({ context }) => context === '*' || context === name)),
  };
};
