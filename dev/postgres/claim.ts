import { randomUUID } from 'node:crypto';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startedAt } from './processes.ts';
import { PostgresStartError } from './start-error.ts';

type Claim = { pid: number; started: string | null };

const holder = (text: string): Claim | null => {
  try {
    const claim = JSON.parse(text) as Partial<Claim>;
    if (typeof claim.pid !== 'number' || startedAt(claim.pid) !== claim.started) return null;
    return { pid: claim.pid, started: claim.started };
  } catch {
    return null; // torn by a kill while it was written
  }
};

/**
 * Makes this process the only one that manages a data folder, until the returned function is called or the process dies.
 * Without it a second start would adopt the server of a first one that is alive, and stop it under its feet.
 * @throws PostgresStartError when a living process holds the folder.
 */
export const claim = async (folder: string): Promise<() => Promise<void>> => {
  const path = join(folder, 'owner.json');
  const mine = `${JSON.stringify({ pid: process.pid, started: startedAt(process.pid) })}\n`;
  const draft = join(folder, `owner.${randomUUID()}`);
  await writeFile(draft, mine);
  try {
    for (let attempt = 0; attempt < 20; attempt++) {
      try {
        await link(draft, path); // atomic, and refuses an existing file, which rename would replace
        return () => rm(path, { force: true });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
      const text = await readFile(path, 'utf8').catch(() => null);
      if (text === null) continue;
      const other = holder(text);
      if (other !== null)
        throw new PostgresStartError(
          `the PostgreSQL data folder ${folder} is in use by process ${other.pid}, which is running: stop it, or choose another folder`,
        );
      const aside = `${draft}.stale`;
      await rename(path, aside).catch(() => undefined);
      // Another starter may have replaced the dead owner's file between our look and our rename: then it gets its claim back.
      if ((await readFile(aside, 'utf8').catch(() => text)) !== text) await link(aside, path).catch(() => undefined);
      await rm(aside, { force: true });
    }
    throw new PostgresStartError(`the PostgreSQL data folder ${folder} is being claimed by other processes: try again`);
  } finally {
    await rm(draft, { force: true });
  }
};
