import { z } from 'zod';
import type { CheckInput, Report } from './checks.ts';
import { checkCertificates, checkKey } from './pem.ts';
import { object } from './shapes.ts';
import { address, text, yesNo } from './values.ts';

/** Each is PEM text (for instance by `${file:…}`), or the path of a PEM file, which is read anew when it changes. */
const pair = object({
  /** The certificate, intermediates behind it. */
  cert: text(1_048_576),
  /** Its private key, without a passphrase. */
  key: text(1_048_576),
});

const entry = object({
  address: address(),
  /** One certificate, or several: the name that a client asks for chooses, and the first is for all others. Always a list once parsed. */
  tls: z
    .union([pair, z.array(pair).min(1, { error: 'at least one certificate' }).max(256)], { error: '{ cert, key }, or a list of them' })
    .transform((value) => (Array.isArray(value) ? value : [value]))
    .nullable()
    .prefault(null),
  /** HTTP/2 beside HTTP/1.1; without `tls` for clients that know beforehand (h2c). */
  http2: yesNo().prefault(false),
});

const ITEM = 'HOST:PORT such as 127.0.0.1:8080, or { address, tls: { cert, key }, http2 }';

type Item = z.output<typeof entry> | z.output<ReturnType<typeof address>>;
const whole = (item: Item) =>
  'address' in item ? { ...item.address, tls: item.tls, http2: item.http2 } : { ...item, tls: null, http2: false };

/** `listen:`, one or a list; always a list once parsed. */
export const listeners = z
  .union([address(), entry, z.array(z.union([address(), entry], { error: ITEM })).min(1, { error: 'at least one address' })], {
    error: `${ITEM}, or a list of them`,
  })
  .transform((value) => (Array.isArray(value) ? value : [value]).map(whole));

/** Certificates that cannot be used, and such as have ended. */
export const checkListenerTls = (input: CheckInput, fault: Report, warn: Report): void => {
  const several = input.says(['listen', 0]);
  for (const [index, { tls }] of input.config.listen.entries()) {
    if (tls === null) continue;
    const base = several ? ['listen', index, 'tls'] : ['listen', 'tls'];
    for (const [i, { cert, key }] of tls.entries()) {
      const at = input.says([...base, 0]) ? [...base, i] : base;
      const leaf = checkCertificates(input, [...at, 'cert'], cert, fault, warn)?.[0];
      checkKey(input, [...at, 'key'], key, leaf, fault);
    }
  }
};
