import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StartError } from './errors.ts';

const socketName = (file: string): string => {
  const name = `banyan-kinesis-${createHash('sha256').update(file).digest('hex').slice(0, 24)}`;
  if (process.platform === 'linux') return `\0${name}`;
  return process.platform === 'win32' ? `\\\\.\\pipe\\${name}` : join(tmpdir(), `${name}.sock`);
};

const listen = (name: string): Promise<Server | undefined> =>
  new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', (error: NodeJS.ErrnoException) => (error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error)));
    server.listen(name, () => resolve(server));
  });

const answers = (name: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(name);
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('close', () => socket.destroy());
  });

/**
 * Makes this process the only one that writes `file` (an absolute path). Held as a local socket name, because the kernel frees that on
 * kill -9; a pid file would outlive its owner and, in containers, meet another process with the same pid.
 * @throws StartError when another process has the file.
 */
export const lockFile = async (file: string): Promise<{ release: () => Promise<void> }> => {
  const name = socketName(file);
  let server = await listen(name);
  // Only where the name is a file (macOS) can it be left behind by a killed owner.
  if (!server && process.platform === 'darwin' && !(await answers(name))) {
    rmSync(name, { force: true });
    server = await listen(name);
  }
  if (!server) throw new StartError(`${file} is in use by another Kinesis emulator; stop it or choose another --data file`);
  const held = server;
  held.unref();
  return { release: () => new Promise((resolve) => void held.close(() => resolve())) };
};
