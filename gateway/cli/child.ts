import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import { cannot, Exit } from './exit.ts';

const ROOT = resolve(import.meta.dirname, '../..');

/**
 * Runs another package's main as a child of this Node, with the same streams; signals and `ready` messages pass through. Resolves when it ended with 0.
 * @throws Exit with the child's code otherwise: 1 stays 1, the rest is 2.
 */
export const runPackage = async (main: string, args: readonly string[]): Promise<void> => {
  const file = resolve(ROOT, main);
  if (!existsSync(file)) throw cannot(`${relative(process.cwd(), file)} is not part of this installation`);
  const child = spawn(process.execPath, [file, ...args], {
    stdio: ['inherit', 'inherit', 'inherit', process.send === undefined ? 'ignore' : 'ipc'],
  });
  child.on('message', (message) => process.send?.(message));
  // Ctrl-C in a terminal reaches the whole process group; passing it on too would count as a second one.
  const passed = (signal: NodeJS.Signals) => () =>
    void (signal === 'SIGINT' && process.stdin.isTTY === true ? undefined : child.kill(signal));
  const handlers = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const).map((signal) => [signal, passed(signal)] as const);
  for (const [signal, handler] of handlers) process.on(signal, handler);
  try {
    const code = await new Promise<number | null>((done, failed) => {
      child.once('error', failed);
      child.once('exit', (exitCode) => done(exitCode));
    });
    if (code !== 0) throw new Exit(code === 1 ? 1 : 2, code === null ? `${main} was killed by ${child.signalCode}` : '');
  } catch (error) {
    if (error instanceof Exit) throw error;
    throw cannot(`${main} cannot be started (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`);
  } finally {
    for (const [signal, handler] of handlers) process.off(signal, handler);
    if (process.connected && child.connected) child.disconnect();
  }
};
