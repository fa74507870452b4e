import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { CheckInput, Report } from './checks.ts';
import type { Path } from './document.ts';
import type { ExtractedConfig, LegacyConfig } from './schema.ts';

const CERTIFICATE = /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[\s\S]+?-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g;

/** The PEM text that is meant, or why there is none. A key's text never shows. */
const pemOf = (input: CheckInput, textOrPath: string): { readonly text: string } | { readonly why: string } => {
  if (textOrPath.includes('-----BEGIN ')) return { text: textOrPath };
  const text = input.file(textOrPath);
  if (text === undefined) return { why: 'is no PEM text, and no file of this name can be read' };
  return text.includes('-----BEGIN ') ? { text } : { why: 'names a file that holds no PEM text' };
};

const certificatesOf = (pem: string): readonly X509Certificate[] | null => {
  try {
    const found = [...pem.matchAll(CERTIFICATE)].map(([block]) => new X509Certificate(block));
    return found.length === 0 ? null : found;
  } catch {
    return null;
  }
};

const PEM_CERTIFICATE = 'a certificate as PEM text, or the path of a file with one';
const PEM_KEY = 'a private key without a passphrase as PEM text, or the path of a file with one';

const checkTls = (input: CheckInput, at: Path, tls: NonNullable<LegacyConfig['tls']>, fault: Report, warn: Report): void => {
  const certificates = (key: 'ca' | 'cert'): readonly X509Certificate[] | null => {
    const given = tls[key];
    if (given === null) return null;
    const pem = pemOf(input, given);
    const found = 'why' in pem ? null : certificatesOf(pem.text);
    if ('why' in pem) fault([...at, key], pem.why, PEM_CERTIFICATE, 'value');
    else if (found === null) fault([...at, key], 'holds no certificate that can be read', PEM_CERTIFICATE, 'value');
    for (const one of found ?? [])
      if (one.validTo !== '' && new Date(one.validTo).toISOString().slice(0, 10) < input.today)
        warn([...at, key], `a certificate in it ended on ${new Date(one.validTo).toISOString().slice(0, 10)}`, undefined, 'value');
    return found;
  };
  certificates('ca');
  const own = certificates('cert')?.[0];
  if (tls.key !== null) {
    const pem = pemOf(input, tls.key);
    if ('why' in pem) fault([...at, 'key'], pem.why, PEM_KEY, 'value');
    else {
      try {
        const key = createPrivateKey(pem.text);
        if (own !== undefined && !own.checkPrivateKey(key)) fault([...at, 'key'], 'is not the key of cert', PEM_KEY, 'value');
      } catch {
        fault([...at, 'key'], 'holds no private key that can be read', PEM_KEY, 'value');
      }
    }
  }
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
