import { z } from 'zod';
import { object } from './shapes.ts';
import { duration, share, statusRange, text, textual, UPSTREAM_URL, upstreamUrl, whole, yesNo } from './values.ts';

export { UPSTREAM_URL };

/** RFC 6066: a server name is a host name, never an address. */
const SERVERNAME = 'a host name such as shop.internal';
const servername = () =>
  textual(SERVERNAME, (raw) =>
    /^(?=.{1,253}$)(?!\d+(?:\.\d+){3}$)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*$/i.test(raw)
      ? { ok: true, value: raw.toLowerCase() }
      : { ok: false, expected: SERVERNAME },
  );

const pem = () => text(1_048_576).nullable().prefault(null);

/** How `https:` urls are spoken to. PEM text (for instance by `${file:…}`), or the path of a PEM file, which is read anew when it changes. */
const tls = object({
  /** Who may have signed the upstream's certificate, instead of the public authorities; null = those. */
  ca: pem(),
  /** Shown to an upstream that asks for a client certificate; with `key`. */
  cert: pem(),
  key: pem(),
  /** Name asked for and expected in the certificate; null = the host of the url. */
  servername: servername().nullable().prefault(null),
  /** false = any certificate will do: no protection against who stands between. */
  verify: yesNo().prefault(true),
});

const PATH = 'a path such as /healthz';

/** Active checks, on connections of their own. */
const health = object({
  /** Asked by GET; null = a connection (with TLS its handshake) is enough. */
  path: textual(PATH, (raw) => (/^\/[\x21-\x22\x24-\x7e]{0,2000}$/.test(raw) ? { ok: true, value: raw } : { ok: false, expected: PATH }))
    .nullable()
    .prefault(null),
  /** ms between two checks of one host. */
  interval: duration().prefault('5s'),
  /** ms for one check. */
  timeout: duration().prefault('2s'),
  /** Good checks in a row that bring a host back. */
  healthyAfter: whole(1, 100).prefault(2),
  /** Failed checks in a row that take a host out. */
  unhealthyAfter: whole(1, 100).prefault(3),
  /** What counts as good. */
  status: statusRange().prefault('200-399'),
});

/** What real traffic shows: a host that fails again and again is left out for a while. Means nothing with one host. */
const outlier = object({
  /** Connection failures, resets, time-outs and 5xx in a row. */
  consecutiveFailures: whole(1, 1_000_000).prefault(5),
  /** ms; doubles each time, up to ten times this. */
  ejection: duration().prefault('30s'),
  /** Share of the hosts, basis points, rounded down; yet one may go, and one always stays. */
  maxEjected: share().prefault('50%'),
});

/** The keys that say where an upstream is: `url` or `urls`, TLS, checks and ejection. */
export const upstreamHosts = () => ({
  url: upstreamUrl().nullable().prefault(null),
  urls: z.array(upstreamUrl(), { error: 'a list of addresses' }).max(64, { error: 'at most 64 addresses' }).prefault([]),
  tls: tls.nullable().prefault(null),
  /** null = none. */
  health: health.nullable().prefault(null),
  /** null = no host is ever left out for how it answers. */
  outlier: outlier.nullable().prefault({}),
});

/** All hosts, whichever way they were written. */
export const urlsOf = ({ url, urls }: { readonly url: string | null; readonly urls: string[] }): string[] =>
  urls.length > 0 ? urls : url === null ? [] : [url];
