import { write, writeSync } from 'node:fs';
import type { DestinationStream } from 'pino';

/** Lines leave together, when this much has gathered, or after the time below, or at exit. */
const BATCH_BYTES = 64 * 1024;
const BATCH_MS = 100;
/** A reader that stands still costs lines beyond this, never requests: a write that blocks would hold up every client. */
const HELD_BYTES = 16 * 1024 * 1024;
/** UTF-8 needs at most this many bytes for a UTF-16 unit. */
const WIDEST = 3;
/** How long the end of the process waits for a reader that stands still. */
const LAST_MS = 1000;
const RETRY_MS = 20;

const isBusy = (error: unknown): boolean => ['EAGAIN', 'EBUSY'].includes((error as NodeJS.ErrnoException).code ?? '');

/**
 * Writes log lines to a file descriptor in batches, off the request's path; what is left goes out at exit. When nobody reads any more (EPIPE) lines
 * are dropped: pino's own destination then repeats its last write for ever, so that the process never ends (sonic-boom 4.2, `flushSync`).
 */
export const logLines = (fd: number): DestinationStream => {
  /** Lines are encoded as they come, while they are in the cache: a long string of thousands of pieces is slow to make flat. */
  let batch = Buffer.allocUnsafe(BATCH_BYTES);
  let used = 0;
  /** Full batches that wait for the one that is being written. */
  let queue: Buffer[] = [];
  let queued = 0;
  let leaving: Buffer | null = null;
  let writing = false;
  let due = false;
  let gone = false;

  const turnOver = (): void => {
    if (used === 0) return;
    queue.push(batch.subarray(0, used));
    queued += used;
    batch = Buffer.allocUnsafe(BATCH_BYTES);
    used = 0;
  };
  const later = (): void => {
    if (due) return;
    due = true;
    setTimeout(() => {
      due = false;
      flush();
    }, BATCH_MS).unref();
  };
  const flush = (): void => {
    if (writing) return; // its end looks again
    if (leaving === null) {
      if (queue.length === 0) turnOver();
      leaving = queue.shift() ?? null;
      if (leaving === null) return;
      queued -= leaving.length;
    }
    writing = true;
    write(fd, leaving, (error, written) => {
      writing = false;
      if (error !== null && !isBusy(error)) {
        gone = true;
        queue = [];
        queued = 0;
        used = 0;
        leaving = null;
        return;
      }
      const rest = error === null ? leaving!.subarray(written) : leaving!;
      leaving = rest.length === 0 ? null : rest;
      if (error !== null) later();
      else if (leaving !== null || queue.length > 0) flush();
      else if (used > 0) later();
    });
  };
  process.once('exit', () => {
    if (gone) return;
    // what is being written will be
    turnOver();
    let rest = Buffer.concat([...(writing || leaving === null ? [] : [leaving]), ...queue]);
    const deadline = performance.now() + LAST_MS;
    while (rest.length > 0) {
      try {
        rest = rest.subarray(writeSync(fd, rest));
      } catch (error) {
        if (!isBusy(error) || performance.now() > deadline) return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
      }
    }
  });
  return {
    write(line) {
      const most = line.length * WIDEST;
      if (gone || queued + used + line.length > HELD_BYTES) return;
      if (used + most > batch.length) {
        turnOver();
        if (most > batch.length) batch = Buffer.allocUnsafe(most);
      }
      used += batch.write(line, used);
      if (queue.length > 0) flush();
      else later();
    },
  };
};
