/** When a ramp may advance: a window on some days of the week, in the local time of `zone`. */
export type Window = {
  /** 0 = Sunday … 6 = Saturday. */
  readonly days: readonly number[];
  /** Minutes after midnight, 0..1440; `to` is excluded. A window past midnight (22:00-06:00) belongs to the day on which it begins. */
  readonly from: number;
  readonly to: number;
  /** IANA name such as Europe/Zurich. */
  readonly zone: string;
};

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const formats = new Map<string, Intl.DateTimeFormat>();

const formatOf = (zone: string): Intl.DateTimeFormat => {
  const known = formats.get(zone);
  if (known) return known;
  const made = new Intl.DateTimeFormat('en-US', { timeZone: zone, weekday: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  formats.set(zone, made);
  return made;
};

const localTime = (zone: string, at: number): { day: number; minute: number } => {
  const parts: Record<string, string> = {};
  for (const { type, value } of formatOf(zone).formatToParts(at)) parts[type] = value;
  return { day: DAYS.indexOf(parts.weekday ?? ''), minute: Number(parts.hour) * 60 + Number(parts.minute) };
};

const holds = ({ days, from, to, zone }: Window, at: number): boolean => {
  const { day, minute } = localTime(zone, at);
  if (from < to) return days.includes(day) && minute >= from && minute < to;
  return (days.includes(day) && minute >= from) || (days.includes((day + 6) % 7) && minute < to);
};

/** Pure. May a ramp advance at `at` (Unix ms)? No window at all = always. */
export const isOpen = (schedule: readonly Window[], at: number): boolean =>
  schedule.length === 0 || schedule.some((window) => holds(window, at));

const MINUTE_MS = 60_000;
const QUARTER_MS = 15 * MINUTE_MS;
const AHEAD = 8 * 24 * 4;

/** The first moment from `at` on at which the schedule is open, to the minute; null when it is not open within eight days. */
export const nextOpen = (schedule: readonly Window[], at: number): number | null => {
  if (isOpen(schedule, at)) return at;
  const start = Math.floor(at / QUARTER_MS) * QUARTER_MS;
  for (let quarter = 1; quarter <= AHEAD; quarter++) {
    const end = start + quarter * QUARTER_MS;
    if (!isOpen(schedule, end)) continue;
    for (let minute = end - QUARTER_MS + MINUTE_MS; minute < end; minute += MINUTE_MS)
      if (minute > at && isOpen(schedule, minute)) return minute;
    return end;
  }
  return null;
};
