import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

const onLinux = process.platform === 'linux';

const signalled = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};

const ps = (pid: number, column: string): string =>
  spawnSync('ps', ['-o', `${column}=`, '-p', String(pid)], { encoding: 'utf8' }).stdout?.trim() ?? '';

/**
 * When a process was started, as an opaque text that differs between two processes which had the same id one after the other.
 * `null` = no such process; a zombie (killed, not yet reaped: init of many containers never reaps) counts as none.
 */
export const startedAt = (pid: number): string | null => {
  if (pid <= 0 || !signalled(pid)) return null;
  if (!onLinux) return ps(pid, 'stat').startsWith('Z') ? null : ps(pid, 'lstart') || null;
  try {
    // proc_pid_stat(5): the name in brackets may hold spaces; after it the state is the first field and the start time the twentieth.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? null : (fields[19] ?? null);
  } catch {
    return null;
  }
};

/** The arguments of a running process, `[]` when there is none. Off Linux it is one text, since `ps` does not tell arguments apart. */
export const argumentsOf = (pid: number): string[] => {
  if (!onLinux) return [ps(pid, 'command')].filter(Boolean);
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').filter(Boolean);
  } catch {
    return [];
  }
};

/** Waits until the process is gone; `false` when it still runs after `timeoutMs`. Polls, because it need not be a child of ours. */
export const gone = async (pid: number, timeoutMs: number): Promise<boolean> => {
  const deadline = performance.now() + timeoutMs;
  while (startedAt(pid) !== null) {
    if (performance.now() > deadline) return false;
    await pause(onLinux ? 10 : 100);
  }
  return true;
};

/** Sends a signal; a process that has just ended is no error. */
export const signal = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
};
