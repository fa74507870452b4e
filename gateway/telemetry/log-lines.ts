import { write, writeSync } from 'node:fs';
import type { DestinationStream } from 'pino';

/** Lines leave together, when this much has gathered, or after the time below, or at exit. */
const BATCH_CHARS = 32 * 1024;
const BATCH_MS = 100;
/** A reader that stands still costs lines beyond this, never requests: a write that blocks would hold up every client. */
const HELD_CHARS = 16 * 1024 * 1024;
/** How long the end of the process waits for a reader that stands still. */
const LAST_MS = 1000;
const RETRY_MS = 20;

const isBusy = (error: unknown): boolean => ['EAGAIN', 'EBUSY'].includes((error as NodeJS.ErrnoException).code ?? '');

/**
 * Writes log lines to a file descriptor in batches, off the request's path; what is left goes out at exit. When nobody reads any more (EPIPE) lines
 * are dropped: pino's own destination then repeats its last write for ever, so that the process never ends (sonic-boom 4.2, `flushSync`).
 */
export const logLines = (fd: number): DestinationStream => {
  let gathered = '';
  let leaving: Buffer | null = null;
  let writing = false;
  let due = false;
  let gone = false;

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
      if (gathered === '') return;
      leaving = Buffer.from(gathered);
      gathered = '';
    }
    writing = true;
    write(fd, leaving, (error, written) => {
      writing = false;
      if (error !== null && !isBusy(error)) {
        gone = true;
        gathered = '';
        leaving = null;
        return;
      }
      const rest = error === null ? leaving!.subarray(written) : leaving!;
      leaving = rest.length === 0 ? null : rest;
      if (error !== null) later();
      else if (leaving !== null || gathered.length >= BATCH_CHARS) flush();
      else if (gathered !== '') later();
    });
  };
  process.once('exit', () => {
    if (gone) return;
    // what is being written will be
    let rest = Buffer.concat([writing || leaving === null ? Buffer.alloc(0) : leaving, Buffer.from(gathered)]);
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
      if (gone || gathered.length + line.length > HELD_CHARS) return;
      gathered += line;
      if (gathered.length >= BATCH_CHARS) flush();
      else later();
    },
  };
};
