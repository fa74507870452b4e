import { AppError } from '@banyan/contracts/errors.ts';
import type { Logger } from 'pino';
import type { JournalEntry } from '../ports.ts';
import type { Metrics } from './metrics.ts';

export type Journal = {
  /** Never throws. */
  note(entry: JournalEntry): void;
};

const toHundredths = (ms: number): number => Math.round(ms * 100) / 100;

/** A client that leaves is no failure. */
const failed = (error: unknown): boolean => error !== undefined && !(error instanceof AppError && error.code === 'client-left');

/** One log line and one set of metrics per request; `info` for what a context owns and for failures, `debug` for plain traffic. */
export const createJournal = (deps: { metrics: Pick<Metrics, 'request' | 'journalFailed'>; log: Logger }): Journal => ({
  note(entry) {
    try {
      deps.metrics.request(entry);
      const level = entry.context !== null || failed(entry.error) ? 'info' : 'debug';
      // the line is not even built when nobody reads it
      if (!deps.log.isLevelEnabled(level)) return;
      const { decisionKind, durationMs, error, ...rest } = entry;
      deps.log[level](
        { ...rest, decision: decisionKind, processingTime: toHundredths(durationMs), ...(error === undefined ? {} : { error }) },
        'request',
      );
    } catch {
      deps.metrics.journalFailed();
    }
  },
});
