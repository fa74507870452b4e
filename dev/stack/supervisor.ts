import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** One child process of the stack. */
export type Part = {
  readonly name: string;
  /** Script, relative to the repository. */
  readonly script: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** How long it may take until it is ready, ms. */
  readonly readyMs: number;
};

export type SupervisorDeps = {
  readonly root: string;
  readonly say: (line: string) => void;
  readonly onFatal: (part: string, why: string) => void;
  /** The process ids changed: a part started or ended. */
  readonly onPids: (pids: Readonly<Record<string, number>>) => void;
};

type Running = { part: Part; child: ChildProcess; exited: Promise<void>; crashes: number };

/** The part could not start; its own words were already printed. */
export class PartFailed extends Error {
  readonly exitCode: number;
  constructor(name: string, exitCode: number, why: string) {
    super(`${name}: ${why}`);
    this.name = 'PartFailed';
    this.exitCode = exitCode;
  }
}

const STOP_MS = 15_000;
const RESTARTS_IN_A_ROW = 20;
const LAST_WORDS_MS = 1000;

/** Parts begin their lines with their own name, which the stack says already. */
const withoutName = (name: string, line: string): string => line.replace(/^banyan( [a-z]+)?: /, '').replace(`${name}: `, '');

export type Supervisor = {
  /** Resolves with the URLs that the part announced. @throws PartFailed */
  start(part: Part): Promise<Record<string, string>>;
  /** Stops everything, last started first. */
  stop(): Promise<void>;
};

/**
 * Starts parts in their own process groups, so that Ctrl-C reaches only the stack, which then stops them in order.
 * A part that crashes is started again after a moment; one that was stopped on purpose (exit 0) stays stopped.
 */
export const createSupervisor = ({ root, say, onFatal, onPids }: SupervisorDeps): Supervisor => {
  const running = new Map<string, Running>();
  const order: string[] = [];
  const timers = new Set<NodeJS.Timeout>();
  let stopping = false;

  const tellPids = (): void =>
    onPids(
      Object.fromEntries([...running.values()].flatMap(({ part, child }) => (child.pid === undefined ? [] : [[part.name, child.pid]]))),
    );

  const launch = (part: Part, crashes: number): Promise<Record<string, string>> =>
    new Promise((resolve, reject) => {
      const child = spawn(
        process.execPath,
        ['--disable-warning=ExperimentalWarning', '--import', join(root, 'dev/stack/leash.ts'), join(root, part.script), ...part.args],
        {
          cwd: root,
          env: { ...process.env, ...part.env },
          stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
          detached: true,
        },
      );
      let ready = false;
      let exitedResolve = (): void => undefined;
      const exited = new Promise<void>((done) => {
        exitedResolve = done;
      });
      const entry: Running = { part, child, exited, crashes };
      running.set(part.name, entry);
      tellPids();
      let lastWords = 'ended before it was ready';
      for (const stream of [child.stdout, child.stderr]) {
        if (!stream) continue;
        createInterface({ input: stream }).on('line', (line) => {
          say(`[${part.name}] ${line}`);
          if (stream === child.stderr && line.trim() !== '') lastWords = withoutName(part.name, line.trim());
        });
      }
      const timer = setTimeout(() => {
        reject(new PartFailed(part.name, 1, `not ready after ${part.readyMs / 1000} s`));
        child.kill('SIGTERM');
      }, part.readyMs);
      timers.add(timer);
      child.on('message', (message: { type?: string; urls?: Record<string, string> }) => {
        if (message?.type !== 'ready') return;
        ready = true;
        clearTimeout(timer);
        timers.delete(timer);
        resolve(message.urls ?? {});
      });
      child.on('error', (error) => reject(new PartFailed(part.name, 1, error.message)));
      child.on('exit', (code, signal) => {
        clearTimeout(timer);
        timers.delete(timer);
        exitedResolve();
        if (running.get(part.name) === entry) running.delete(part.name);
        if (!stopping) tellPids();
        if (stopping) {
          reject(new PartFailed(part.name, code ?? 1, 'stopped'));
          return;
        }
        if (!ready && crashes === 0) {
          const fail = (): void => reject(new PartFailed(part.name, code ?? 1, `${lastWords} (${signal ?? `exit ${code}`})`));
          // why it ended may still be on its way; a child of its own may hold the pipe open
          child.once('close', fail);
          setTimeout(fail, LAST_WORDS_MS).unref();
          return;
        }
        if (code === 0) {
          say(`${part.name} was stopped; the rest goes on`);
          return;
        }
        const next = ready ? 1 : crashes + 1;
        if (next > RESTARTS_IN_A_ROW) {
          onFatal(part.name, `crashed ${next} times in a row`);
          return;
        }
        say(`${part.name} ended (${signal ?? `exit ${code}`}); starting it again`);
        const again = setTimeout(
          () => {
            timers.delete(again);
            if (!stopping) launch(part, next).catch(() => undefined);
          },
          Math.min(5000, 250 * 2 ** (next - 1)),
        );
        timers.add(again);
      });
    });

  const end = async (name: string): Promise<void> => {
    const entry = running.get(name);
    if (!entry) return;
    entry.child.kill('SIGTERM');
    const hard = setTimeout(() => entry.child.kill('SIGKILL'), STOP_MS);
    await entry.exited;
    clearTimeout(hard);
  };

  return {
    start(part) {
      order.push(part.name);
      return launch(part, 0);
    },
    async stop() {
      stopping = true;
      for (const timer of timers) clearTimeout(timer);
      for (const name of [...order].reverse()) await end(name);
    },
  };
};
