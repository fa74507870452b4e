import { AppError } from '@banyan/contracts/errors.ts';
import type { Response } from 'express';
import type { ContextViews } from './context-views.ts';
import type { FlagsPort } from './ports.ts';

/** Pages that look at once. */
const MAX_WATCHERS = 100;
/** A reader that is so far behind is dropped; it may come back. */
const MAX_BEHIND = 1_048_576;
const BEAT_MS = 15_000;

export type Live = {
  /** Answers with a stream of server-sent events: `context` with the whole context, first all, then each that changes. @throws AppError `overloaded` */
  watch(res: Response): void;
  stop(): void;
};

export const createLive = (flags: FlagsPort, views: ContextViews): Live => {
  const watchers = new Set<Response>();
  const send = (res: Response, text: string): void => {
    if (res.writableLength > MAX_BEHIND) res.destroy();
    else res.write(text);
  };
  const all = (text: string): void => {
    for (const res of watchers) send(res, text);
  };
  let beat: NodeJS.Timeout | null = null;
  let unsubscribe: (() => void) | null = null;
  const leave = (res: Response): void => {
    if (!watchers.delete(res) || watchers.size > 0) return;
    if (beat) clearInterval(beat);
    unsubscribe?.();
    beat = null;
    unsubscribe = null;
  };
  const event = (flag: Parameters<ContextViews['now']>[0]): string => `event: context\ndata: ${JSON.stringify(views.now(flag))}\n\n`;

  return {
    watch(res) {
      if (watchers.size >= MAX_WATCHERS)
        throw new AppError('overloaded', `${MAX_WATCHERS} pages watch already`, { retryable: true, retryAfterSeconds: 5 });
      res.status(200).set({ 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' });
      res.flushHeaders();
      res.on('close', () => leave(res));
      res.on('error', () => leave(res));
      watchers.add(res);
      unsubscribe ??= flags.onChange((flag) => all(event(flag)));
      beat ??= setInterval(() => all(': beat\n\n'), BEAT_MS);
      for (const flag of flags.all()) send(res, event(flag));
    },
    stop() {
      for (const res of [...watchers]) {
        res.end();
        leave(res);
      }
    },
  };
};
