import { createHash } from 'node:crypto';
import { chmod, mkdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type RunAs, reachable, runAs } from './run-as.ts';
import { PostgresStartError } from './start-error.ts';

/** `folder` is what was asked for; `home` is where the server's own files lie: the same folder, or one that its user can reach. */
export type Placement = { folder: string; home: string; user: RunAs };

const STATE_ROOTS = ['/var/lib/banyan', '/var/tmp/banyan'];
const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

const readLocation = async (path: string): Promise<string | null> => {
  const text = await readFile(path, 'utf8').catch(() => null);
  if (text === null) return null;
  try {
    const { directory } = JSON.parse(text) as { directory?: unknown };
    if (typeof directory === 'string') return directory;
  } catch {
    // said below
  }
  throw new PostgresStartError(`${path} should say {"directory": "/where/the/data/lies"} and does not: restore or remove it`);
};

/**
 * Decides where the cluster's files go. Normally in the folder itself. When we are root and the folder lies below one that the server's user
 * may not pass (a clone under a 0700 home), in /var/lib/banyan/postgres-HASH, keyed by the folder's path and named in its `location.json`.
 * Whoever removes the folder has removed the data: without `location.json` a state folder of the same key is a leftover.
 */
export const place = async (dataDir: string): Promise<Placement & { leftover: string | null }> => {
  const asked = resolve(dataDir);
  try {
    const made = await mkdir(asked, { recursive: true });
    if (made !== undefined) await chmod(asked, 0o755);
  } catch (error) {
    throw new PostgresStartError(`the PostgreSQL data folder ${asked} cannot be made: ${(error as Error).message}`);
  }
  const folder = await realpath(asked);
  const inside = await runAs(join(folder, 'pgdata'));
  const pointer = join(folder, 'location.json');
  const pointed = await readLocation(pointer);
  if (pointed !== null) {
    if ((await mkdir(pointed, { recursive: true })) !== undefined) await chmod(pointed, 0o755);
    return { folder, home: pointed, user: await runAs(join(pointed, 'pgdata')), leftover: null };
  }
  if (!inside.drop || (await reachable(folder, inside))) return { folder, home: folder, user: inside, leftover: null };
  if (await exists(join(folder, 'pgdata')))
    throw new PostgresStartError(
      `uid ${inside.uid}, which runs PostgreSQL for root, can no longer reach ${folder}: open the folders above it (chmod o+x), or remove ${folder} to begin anew`,
    );
  const key = createHash('sha256').update(folder).digest('hex').slice(0, 16);
  for (const root of STATE_ROOTS) {
    const home = join(root, `postgres-${key}`);
    try {
      const leftover = (await exists(join(home, 'pgdata'))) ? home : null;
      await mkdir(home, { recursive: true, mode: 0o755 });
      await chmod(root, 0o755);
      await chmod(home, 0o755);
      if (await reachable(home, inside)) return { folder, home, user: inside, leftover };
      await rm(home, { recursive: true, force: true });
    } catch {
      // the next root may do
    }
  }
  throw new PostgresStartError(
    `uid ${inside.uid}, which runs PostgreSQL for root, can reach neither ${folder} nor ${STATE_ROOTS.join(' nor ')}: choose another folder`,
  );
};

/** Notes where the data went. Called before the first data is written, so that there is never data which nothing points to. */
export const pin = async ({ folder, home }: Placement): Promise<void> => {
  if (home !== folder) await writeFile(join(folder, 'location.json'), `${JSON.stringify({ directory: home })}\n`);
};
