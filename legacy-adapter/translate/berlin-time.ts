import { AppError } from '@banyan/contracts/errors.ts';

const LOCAL = /^(\d{4})-(\d{2})-(\d{2})[T ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,6}))?$/;
const DAY_MS = 86_400_000;

const clock = new Intl.DateTimeFormat('en-US', {
  timeZone: 'Europe/Berlin',
  hourCycle: 'h23',
  year: 'numeric',
  month: 'numeric',
  day: 'numeric',
  hour: 'numeric',
  minute: 'numeric',
  second: 'numeric',
});

/** What Berlin's clocks show at `instantMs`, as if that were UTC, in whole milliseconds. */
const berlinClock = (instantMs: number): number => {
  const part: Record<string, number> = {};
  for (const { type, value } of clock.formatToParts(instantMs)) if (type !== 'literal') part[type] = Number(value);
  const ms = ((instantMs % 1000) + 1000) % 1000;
  return Date.UTC(part.year!, part.month! - 1, part.day!, part.hour!, part.minute!, part.second!, ms);
};

const offset = (instantMs: number): number => berlinClock(instantMs) - instantMs;

/**
 * Berlin wall time (`2026-01-14T09:12:07.031`, a blank for the T is fine) to RFC 3339 in UTC with milliseconds; finer fractions are cut.
 * Reads as PostgreSQL's `at time zone` does, because that is what the monolith shows: the hour that happens twice in October is the later
 * one, an hour that never was (March) counts on from before the gap.
 * @throws AppError `unprocessable` for anything else
 */
export const toUtc = (local: string): string => {
  const match = LOCAL.exec(local);
  const [year, month, day, hour, minute, second] = (match ?? []).slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const shown = match
    ? Date.UTC(year, month - 1, day, hour, minute, second, Number((match[7] ?? '').padEnd(3, '0').slice(0, 3)))
    : Number.NaN;
  if (!match || new Date(shown).getUTCDate() !== day || hour > 23 || minute > 59 || second > 59)
    throw new AppError('unprocessable', `"${local}" is no local time like 2026-01-14 09:12:07.031`);
  const [before, after] = [offset(shown - DAY_MS), offset(shown + DAY_MS)];
  const [early, late] = [shown - before, shown - after];
  const valid = [early, late].filter((instant) => berlinClock(instant) === shown);
  return new Date(valid.length === 0 ? early : Math.max(...valid)).toISOString();
};

/**
 * RFC 3339 with any offset to Berlin wall time `2026-01-14 09:12:07.031`.
 * @throws AppError `unprocessable` for anything else
 */
export const toBerlin = (instant: string): string => {
  const ms = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$/.test(instant) ? Date.parse(instant) : Number.NaN;
  if (Number.isNaN(ms)) throw new AppError('unprocessable', `"${instant}" is no time like 2026-01-14T08:12:07.031Z`);
  return new Date(berlinClock(ms)).toISOString().slice(0, 23).replace('T', ' ');
};
