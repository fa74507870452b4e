import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, readSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { KinesisError, StartError } from './errors.ts';
import { frame, MAGIC, scan } from './frames.ts';
import { lockFile } from './lock.ts';

/** An append-only list of entries (JSON texts). What `append` has resolved survives a kill -9, and with fsync a power cut. */
export type Log = {
  /**
   * Queues an entry; `committed` runs, in the order of the calls, once it is durable, just before the promise resolves.
   * @throws KinesisError 500 when the file cannot be written any more, 503 when too much is queued.
   */
  readonly append: (entry: string, committed: () => void) => Promise<void>;
  /** Bytes of the file; 0 in memory. */
  readonly bytes: () => number;
  /** Replaces the file by `entries`, which stand for everything committed so far, before the next append is written. */
  readonly compact: (entries: () => Iterable<string>) => Promise<void>;
  readonly close: () => Promise<void>;
};

export type LogDeps = {
  readonly file: string;
  readonly fsync: boolean;
  /** Bytes that may wait for the disk. */
  readonly queueBytes: number;
  readonly warn: (line: string) => void;
};

/** The log of an emulator without a file: everything is committed at once and gone with the process. */
export const memoryLog = (): Log => ({
  append: async (_entry, committed) => committed(),
  bytes: () => 0,
  compact: async () => undefined,
  close: async () => undefined,
});

type Waiting = { buffer: Buffer; committed: () => void; resolve: () => void; reject: (error: Error) => void };

const prepare = (file: string): void => {
  mkdirSync(dirname(file), { recursive: true });
  rmSync(`${file}.compact`, { force: true });
  if (!existsSync(file)) {
    writeFileSync(file, MAGIC);
    return;
  }
  const start = Buffer.alloc(MAGIC.length);
  const fd = openSync(file, 'r');
  const read = readSync(fd, start, 0, start.length, 0);
  closeSync(fd);
  // Shorter than the magic: killed while it was being made.
  if (read < MAGIC.length && MAGIC.subarray(0, read).equals(start.subarray(0, read))) writeFileSync(file, MAGIC);
  else if (!start.equals(MAGIC)) throw new StartError(`${file} is not a Kinesis emulator data file; choose another --data file`);
};

const syncFolder = async (file: string): Promise<void> => {
  if (process.platform === 'win32') return;
  const folder = await open(dirname(file), 'r');
  await folder.sync().finally(() => folder.close());
};

/**
 * Opens `file`, hands every entry in it to `load`, cuts off a tail that a kill has torn, and takes appends: whatever arrives while one
 * fsync runs shares the next one.
 * @throws StartError when the file is in use, is not ours or cannot be opened.
 */
export const openLog = async (d: LogDeps, load: (entry: string) => void): Promise<Log> => {
  const file = resolve(d.file);
  const lock = await lockFile(file);
  let handle: FileHandle;
  let size: number;
  try {
    prepare(file);
    const found = scan(file, (payload) => load(payload.toString()));
    if (found.tail === 'damaged') {
      copyFileSync(file, `${file}.damaged`);
      d.warn(`${file} is damaged at byte ${found.end} of ${found.size}: going on with what stands before it, a copy is in ${file}.damaged`);
    } else if (found.tail === 'torn') {
      d.warn(`${file}: dropped ${found.size - found.end} bytes of an entry that was never acknowledged`);
    }
    if (found.tail !== 'none') truncateSync(file, found.end);
    size = found.end;
    handle = await open(file, 'r+');
    if (d.fsync) {
      await handle.datasync();
      await syncFolder(file);
    }
  } catch (error) {
    await lock.release();
    if (error instanceof StartError || !(error as NodeJS.ErrnoException).code) throw error;
    throw new StartError(`cannot open the data file ${file}: ${(error as Error).message}`);
  }

  let queue: Waiting[] = [];
  let queuedBytes = 0;
  let snapshot: (() => Iterable<string>) | undefined;
  let failure: KinesisError | undefined;
  let running: Promise<void> | undefined;

  const writeBatch = async (batch: Waiting[]): Promise<void> => {
    const bytes = Buffer.concat(batch.map((one) => one.buffer));
    let written = 0;
    while (written < bytes.length) written += (await handle.write(bytes, written, bytes.length - written, size + written)).bytesWritten;
    if (d.fsync) await handle.datasync();
    size += bytes.length;
  };

  const rewrite = async (entries: Iterable<string>): Promise<void> => {
    const next = await open(`${file}.compact`, 'w');
    let nextSize = 0;
    let buffers: Buffer[] = [MAGIC];
    let buffered = MAGIC.length;
    const flush = async (): Promise<void> => {
      await next.appendFile(Buffer.concat(buffers));
      nextSize += buffered;
      buffers = [];
      buffered = 0;
    };
    for (const entry of entries) {
      const buffer = frame(entry);
      buffers.push(buffer);
      buffered += buffer.length;
      if (buffered > 4 * 1024 * 1024) await flush();
    }
    await flush();
    await next.sync();
    await next.close();
    await rename(`${file}.compact`, file);
    await syncFolder(file);
    await handle.close();
    handle = await open(file, 'r+');
    size = nextSize;
  };

  const fail = (error: Error): KinesisError => {
    // After a failed write or fsync nobody knows what is on the disk: only a restart, which reads it again, may go on writing.
    failure ??= new KinesisError(
      'InternalFailure',
      `the data file ${file} cannot be written (${error.message}); restart the emulator`,
      500,
    );
    d.warn(failure.message);
    return failure;
  };

  const drain = async (): Promise<void> => {
    while (queue.length > 0 || snapshot) {
      const batch = queue;
      queue = [];
      try {
        if (failure) throw failure;
        if (snapshot) {
          const entries = snapshot;
          snapshot = undefined;
          await rewrite(entries());
        }
        if (batch.length > 0) await writeBatch(batch);
        for (const one of batch) {
          one.committed();
          one.resolve();
        }
      } catch (error) {
        snapshot = undefined;
        const reason = failure ?? fail(error as Error);
        for (const one of batch) one.reject(reason);
      }
      for (const one of batch) queuedBytes -= one.buffer.length;
    }
    // In the same turn as the last look at the queue: whoever comes after it starts a new round.
    running = undefined;
  };
  const run = (): Promise<void> => {
    running ??= Promise.resolve().then(drain);
    return running;
  };

  return {
    append: (entry, committed) => {
      if (failure) return Promise.reject(failure);
      const buffer = frame(entry);
      if (queuedBytes > 0 && queuedBytes + buffer.length > d.queueBytes)
        return Promise.reject(new KinesisError('ServiceUnavailable', `${queuedBytes} bytes wait for the disk already`, 503));
      queuedBytes += buffer.length;
      const done = new Promise<void>((resolve, reject) => queue.push({ buffer, committed, resolve, reject }));
      void run();
      return done;
    },
    bytes: () => size,
    compact: (entries) => {
      snapshot = entries;
      return run();
    },
    close: async () => {
      await running;
      await handle.close();
      await lock.release();
    },
  };
};
