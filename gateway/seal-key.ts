import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Logger } from 'pino';

/**
 * The secret that seals stored requests and answers and keys the hashes of clients. Without one in the configuration it is made once and kept
 * beside the file, readable by its owner only; a process that stores nothing gets one of its own.
 */
export const sealKey = (deps: { configured: string | null; home: string | null; needed: boolean; log: Logger }): string => {
  if (deps.configured !== null) return deps.configured;
  if (!deps.needed || deps.home === null) return randomBytes(32).toString('hex');
  const file = join(deps.home, 'seal.key');
  try {
    mkdirSync(deps.home, { recursive: true });
    writeFileSync(file, randomBytes(32).toString('hex'), { mode: 0o600, flag: 'wx' });
    deps.log.warn({ file }, 'seal.key is not configured: one was made; every replica needs the same one');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  return readFileSync(file, 'utf8').trim();
};

/** The one that a gateway with this configuration file has made; null = none. */
export const keptSealKey = (configFile: string): string | null => {
  try {
    return readFileSync(join(dirname(configFile), '.banyan', 'seal.key'), 'utf8').trim();
  } catch {
    return null;
  }
};
