import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { CheckInput, Report } from './checks.ts';
import type { Path } from './document.ts';

const CERTIFICATE = /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[\s\S]+?-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g;
const PEM_CERTIFICATE = 'a certificate as PEM text, or the path of a file with one';
const PEM_KEY = 'a private key without a passphrase as PEM text, or the path of a file with one';

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

/** All certificates of a text or file, leaf first; null after a fault. Warns of those that have ended. */
export const checkCertificates = (
  input: CheckInput,
  at: Path,
  given: string,
  fault: Report,
  warn: Report,
): readonly X509Certificate[] | null => {
  const pem = pemOf(input, given);
  const found = 'why' in pem ? null : certificatesOf(pem.text);
  if ('why' in pem) fault(at, pem.why, PEM_CERTIFICATE, 'value');
  else if (found === null) fault(at, 'holds no certificate that can be read', PEM_CERTIFICATE, 'value');
  for (const one of found ?? []) {
    const day = one.validTo === '' ? null : new Date(one.validTo).toISOString().slice(0, 10);
    if (day !== null && day < input.today) warn(at, `a certificate in it ended on ${day}`, undefined, 'value');
  }
  return found;
};

/** A private key, and whether it is the one of `own`. */
export const checkKey = (input: CheckInput, at: Path, given: string, own: X509Certificate | undefined, fault: Report): void => {
  const pem = pemOf(input, given);
  if ('why' in pem) {
    fault(at, pem.why, PEM_KEY, 'value');
    return;
  }
  try {
    const key = createPrivateKey(pem.text);
    if (own !== undefined && !own.checkPrivateKey(key)) fault(at, 'is not the key of cert', PEM_KEY, 'value');
  } catch {
    fault(at, 'holds no private key that can be read', PEM_KEY, 'value');
  }
};
