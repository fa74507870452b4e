import { z } from 'zod';
import { list, object, oneOf } from './shapes.ts';
import { decimal, duration, percent, text, textual, whole } from './values.ts';

const DAY_NAMES = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];
const DAYS = 'days such as mon-fri, or mon,wed,sat';
const HOURS = 'hours such as 09:00-17:00';
const ZONE = 'a time zone such as Europe/Zurich';
const URL_EXPECTED = 'an http or https address such as https://hooks.internal/banyan, without user and password';

const daysOf = (part: string): number[] | null => {
  const [first = '', last = first, more] = part.split('-').map((name) => name.trim().toLowerCase());
  const [from, to] = [DAY_NAMES.indexOf(first), DAY_NAMES.indexOf(last)];
  if (from < 0 || to < 0 || more !== undefined) return null;
  return Array.from({ length: ((to - from + 7) % 7) + 1 }, (_, i) => (from + i) % 7);
};

/** `mon-fri` or `mon,wed` to weekdays, 0 = Sunday. */
const days = () =>
  textual(DAYS, (raw) => {
    const parts = raw.split(',').map(daysOf);
    return parts.includes(null)
      ? { ok: false, expected: DAYS }
      : { ok: true, value: [...new Set(parts.flatMap((part) => part ?? []))].sort() };
  });

const minuteOf = (clock: string): number | null => {
  const found = /^(\d{1,2}):(\d{2})$/.exec(clock.trim());
  const minute = Number(found?.[1]) * 60 + Number(found?.[2]);
  return found !== null && Number(found[2]) < 60 && minute <= 1_440 ? minute : null;
};

/** `09:00-17:00` to minutes after midnight; 24:00 is the end of a day. */
const hours = () =>
  textual(HOURS, (raw) => {
    const [from = '', to = '', more] = raw.split('-');
    const [begin, end] = [minuteOf(from), minuteOf(to)];
    return begin === null || end === null || begin === end || begin === 1_440 || more !== undefined
      ? { ok: false, expected: HOURS }
      : { ok: true, value: { from: begin, to: end } };
  });

const zone = () =>
  textual(ZONE, (raw) => {
    try {
      return { ok: true, value: new Intl.DateTimeFormat('en-US', { timeZone: raw.trim() }).resolvedOptions().timeZone };
    } catch {
      return { ok: false, expected: ZONE };
    }
  });

const hookUrl = () =>
  textual(URL_EXPECTED, (raw) => {
    const url = URL.canParse(raw.trim()) ? new URL(raw.trim()) : null;
    const fits = url !== null && /^https?:$/.test(url.protocol) && url.hostname !== '' && url.username === '' && url.password === '';
    return fits ? { ok: true, value: url.href } : { ok: false, expected: URL_EXPECTED };
  });

/** A context's `ramp:` block: docs/ramp.md says what each number means. */
export const ramp = object({
  /** Canary shares in basis points, rising. Written as percentages. */
  steps: list(percent(), 'a list of percentages').min(1, { error: 'at least one step' }).prefault([1, 5, 25, 50, 100]),
  /** ms that each step is held at the least. */
  hold: duration().prefault('10m'),
  /** ms between two looks at the evidence. */
  interval: duration().prefault('10s'),
  /** Answers of extracted (in shadow: compared answers) that each step needs. */
  minRequests: whole(1, 1_000_000_000).prefault(500),
  gate: object({
    /** Shares of equal answers of a service that should pass, and of one that must not (Wald's SPRT, alpha 0.01, beta 0.05). */
    parity: object({ good: decimal(0, 1).prefault(0.9995), bad: decimal(0, 1).prefault(0.998) }).prefault({}),
    /** A share of failed answers up to `floor` never counts against extracted. */
    errors: object({ floor: decimal(0, 1).prefault(0.001) }).prefault({}),
    latencyP95Ratio: decimal(0, 1_000).prefault(1.3),
    latencyP99Ratio: decimal(0, 1_000).prefault(1.5),
    /** Answers that each side needs before latencies are compared; until then the step waits. */
    latencySamples: whole(1, 1_000_000_000).prefault(1_000),
    /** ms that extracted may be slower whatever the ratio. */
    latencySlack: duration().prefault('5ms'),
  }).prefault({}),
  /** Windows in which a ramp may advance; none = always. */
  schedule: list(
    object({ days: days().prefault('mon-sun'), hours: hours().prefault('00:00-24:00'), zone: zone().prefault('UTC') }),
    'a list of { days, hours, zone }',
  ).prefault([]),
  /** People besides the one who started the ramp who must approve each step. */
  approvals: whole(0, 10).prefault(0),
  /** `before` can hold a step, `after` and `rollback` are told. */
  webhooks: list(
    object({
      url: hookUrl(),
      on: oneOf(['before', 'after', 'rollback']),
      /** ms. */
      timeout: duration().prefault('5s'),
      /** Key of the HMAC in `banyan-signature`. */
      secret: text(1_024).refine((secret) => secret.length >= 8, { error: 'a secret of at least 8 characters' }),
    }),
    'a list of { url, on, timeout, secret }',
  )
    .max(20, { error: 'at most 20 webhooks' })
    .prefault([]),
  /** Path of the extracted service whose answer tells its version; when it changes evidence starts anew. null = not asked for. */
  version: z
    .union([
      textual('a path such as /version', (raw) =>
        /^\/[^\s#]*$/.test(raw) ? { ok: true, value: raw } : { ok: false, expected: 'a path such as /version' },
      ),
    ])
    .nullable()
    .prefault(null),
});
