import { type FSWatcher, watch } from 'node:fs';
import { dirname } from 'node:path';

/** Writers save one file of a pair after the other. */
const DEBOUNCE_MS = 250;

/**
 * Tells some time after something changed in a folder of these files: they may be replaced, or lie behind a link that is (Kubernetes). What it is that
 * changed, if anything, is the caller's to see. A folder that cannot be watched is left out. Gives what ends it.
 */
export const watchFolders = (paths: readonly string[], changed: () => void): (() => void) => {
  let timer: NodeJS.Timeout | null = null;
  const notice = (): void => {
    if (timer === null) timer = setTimeout(changed, DEBOUNCE_MS).unref();
    else timer.refresh();
  };
  const watchers: FSWatcher[] = [];
  for (const folder of new Set(paths.map((path) => dirname(path)))) {
    try {
      watchers.push(watch(folder, { persistent: false }, notice).on('error', () => undefined));
    } catch {
      // It was there a moment ago, when its files were read.
    }
  }
  return () => {
    if (timer !== null) clearTimeout(timer);
    for (const watcher of watchers) watcher.close();
  };
};
