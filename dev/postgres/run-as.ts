import { readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { PostgresStartError } from './start-error.ts';

/** The user whom the server's processes belong to; `drop` = we are root and must change to it. */
export type RunAs = { uid: number; gid: number; drop: boolean };

const statOrNull = (path: string) => stat(path).catch(() => null);

/**
 * PostgreSQL refuses to run as root, so root runs it as the owner of existing data, else as `nobody`: initdb wants a user that is in
 * /etc/passwd, and `nobody` is there without a `useradd`.
 * @param data the folder that holds, or will hold, the cluster's files
 */
export const runAs = async (data: string): Promise<RunAs> => {
  const uid = process.getuid?.();
  const gid = process.getgid?.();
  if (uid === undefined || gid === undefined)
    throw new PostgresStartError(
      `the embedded PostgreSQL does not run on ${process.platform}: use Linux, macOS or WSL, or set DATABASE_URL to a server of your own`,
    );
  const owner = await statOrNull(data);
  if (uid !== 0) {
    if (owner !== null && owner.uid !== uid)
      throw new PostgresStartError(
        `the PostgreSQL data in ${data} belongs to uid ${owner.uid} and we are uid ${uid}: start it as that user or as root, or choose another folder`,
      );
    return { uid, gid, drop: false };
  }
  if (owner !== null && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid, drop: true };
  const passwd = await readFile('/etc/passwd', 'utf8').catch(() => '');
  const nobody = /^nobody:[^:]*:(\d+):(\d+):/m.exec(passwd);
  if (nobody === null)
    throw new PostgresStartError(
      'PostgreSQL does not run as root and there is no user "nobody" in /etc/passwd: start as another user, or set DATABASE_URL',
    );
  return { uid: Number(nobody[1]), gid: Number(nobody[2]), drop: true };
};

/** What `spawn` needs so that the child runs as that user. */
export const identity = (user: RunAs): { uid?: number; gid?: number } => (user.drop ? { uid: user.uid, gid: user.gid } : {});

/** Whether the user may pass through every existing folder from `/` down to `path` (permission bits only; root under a 0700 home is the case that matters). */
export const reachable = async (path: string, user: RunAs): Promise<boolean> => {
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    const found = await statOrNull(folder);
    if (found !== null) {
      const bit = found.uid === user.uid ? 0o100 : found.gid === user.gid ? 0o010 : 0o001;
      if ((found.mode & bit) === 0) return false;
    }
    if (folder === dirname(folder)) return true;
  }
};
