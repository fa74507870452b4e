import { generate } from 'selfsigned';

/** PEM text. `ca` is what a peer has to trust; a self-signed certificate is its own. */
export type Certificate = { readonly cert: string; readonly key: string; readonly ca: string };

export type CertificateOptions = {
  /** The first is the common name too. DNS names (`*.shop.test` is legal) and addresses; at least one. */
  readonly names: readonly string[];
  /** Default: an hour ago. */
  readonly notBefore?: Date;
  /** Default: a day ahead. */
  readonly notAfter?: Date;
  /** Default `server`. */
  readonly use?: 'server' | 'client';
};

export type Authority = {
  /** PEM of the authority's own certificate. */
  readonly ca: string;
  issue(options: CertificateOptions): Promise<Certificate>;
};

const HOUR_MS = 3_600_000;
/** Elliptic, because an RSA pair takes a hundred times as long to make. */
const KIND = { keyType: 'ec', algorithm: 'sha256' } as const;

const periodOf = (options: Pick<CertificateOptions, 'notBefore' | 'notAfter'>) => ({
  notBeforeDate: options.notBefore ?? new Date(Date.now() - HOUR_MS),
  notAfterDate: options.notAfter ?? new Date(Date.now() + 24 * HOUR_MS),
});

const isAddress = (name: string): boolean => name.includes(':') || /^[\d.]+$/.test(name);

const leafOf = (options: CertificateOptions) => ({
  ...KIND,
  ...periodOf(options),
  extensions: [
    { name: 'basicConstraints' as const, cA: false, critical: true },
    { name: 'keyUsage' as const, digitalSignature: true, critical: true },
    { name: 'extKeyUsage' as const, serverAuth: options.use !== 'client', clientAuth: options.use === 'client' },
    {
      name: 'subjectAltName' as const,
      altNames: options.names.map((name) => (isAddress(name) ? { type: 7 as const, ip: name } : { type: 2 as const, value: name })),
    },
  ],
});

const subjectOf = (name: string) => [{ name: 'commonName', value: name }];

/** A throw-away certificate authority, in memory. */
export const createAuthority = async (name = 'Banyan test authority'): Promise<Authority> => {
  const own = await generate(subjectOf(name), {
    ...KIND,
    ...periodOf({}),
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
  });
  return {
    ca: own.cert,
    async issue(options) {
      const made = await generate(subjectOf(options.names[0] ?? 'nameless'), {
        ...leafOf(options),
        ca: { key: own.private, cert: own.cert },
      });
      return { cert: made.cert, key: made.private, ca: own.cert };
    },
  };
};

/** A certificate that nobody else vouches for. */
export const selfSigned = async (options: CertificateOptions): Promise<Certificate> => {
  const made = await generate(subjectOf(options.names[0] ?? 'nameless'), leafOf(options));
  return { cert: made.cert, key: made.private, ca: made.cert };
};
