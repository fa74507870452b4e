import type { CheckInput, Report } from './checks.ts';
import type { Path } from './document.ts';
import { checkCertificates, checkKey } from './pem.ts';
import type { ExtractedConfig, LegacyConfig } from './schema.ts';

const checkTls = (input: CheckInput, at: Path, tls: NonNullable<LegacyConfig['tls']>, fault: Report, warn: Report): void => {
  if (tls.ca !== null) checkCertificates(input, [...at, 'ca'], tls.ca, fault, warn);
  const own = tls.cert === null ? undefined : checkCertificates(input, [...at, 'cert'], tls.cert, fault, warn)?.[0];
  if (tls.key !== null) checkKey(input, [...at, 'key'], tls.key, own, fault);
  if ((tls.cert === null) !== (tls.key === null)) fault(at, 'says only one of cert and key', 'both, or neither');
  if (!tls.verify)
    warn([...at, 'verify'], 'certificates are not verified: whoever stands between can read and change everything', undefined, 'value');
};

/** Rules over the addresses, certificates and checks of one upstream. */
export const checkUpstream = (input: CheckInput, at: Path, upstream: LegacyConfig | ExtractedConfig, fault: Report, warn: Report): void => {
  const { urls, tls, health } = upstream;
  if (input.says([...at, 'url']) && input.says([...at, 'urls']))
    fault([...at, 'urls'], `says again what ${at.join('.')}.url says`, 'either url or urls');
  if (new Set(urls).size < urls.length) fault([...at, 'urls'], 'names a host twice', 'every host once', 'value');
  if (tls !== null) {
    if (urls.length > 0 && !urls.some((url) => url.startsWith('https:'))) warn([...at, 'tls'], 'means nothing without an https: address');
    checkTls(input, [...at, 'tls'], tls, fault, warn);
  }
  if (health !== null && health.interval < 100) fault([...at, 'health', 'interval'], 'is too often', 'at least 100ms', 'value');
};
