import { X509Certificate } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions, type Server, type TlsOptions } from 'node:tls';
import { AppError } from '@banyan/contracts/errors.ts';
import { readPem, stampOf } from './pem.ts';

/** A certificate (leaf first, then intermediates) and its key: PEM text or the path of a PEM file each. */
export type CertificateSource = { readonly cert: string; readonly key: string };

type Pair = {
  readonly cert: string;
  readonly key: string;
  readonly context: SecureContext;
  /** DNS names it stands for, lower case; `*.shop.test` stands for one label more. */
  readonly names: readonly string[];
};

/** TLS 1.0 and 1.1 are forbidden (RFC 8996); the ciphers are Node's own choice, which HTTP/2 may use (RFC 9113 9.2.2). */
const HARDENING = { minVersion: 'TLSv1.2', honorCipherOrder: true } as const satisfies SecureContextOptions;

/** The certificates of one listener, which change while it runs. */
export type SecureListener = {
  readonly options: Pick<TlsOptions, 'cert' | 'key' | 'minVersion' | 'honorCipherOrder' | 'SNICallback'>;
  /** What connections to come are shown; those that stand are left alone. @throws AppError `not-configured`, and then nothing changes */
  replace(server: Server, sources: readonly CertificateSource[]): void;
  /** Reads the files again when one of them is another now. True = it was. @throws as `replace` */
  refresh(server: Server): boolean;
  /** Files that are read. */
  readonly paths: readonly string[];
};

const namesOf = (certificate: X509Certificate): string[] =>
  [...(certificate.subjectAltName ?? '').matchAll(/(?:^|, )DNS:([^",]+)/g)].map(([, name]) => name!.toLowerCase());

/** Never says what the texts or files hold. */
const read = (source: CertificateSource, position: number): Pair => {
  const refuse = (what: string, cause: unknown): never => {
    throw new AppError('not-configured', `certificate ${position + 1} of the listener: ${what}`, { cause });
  };
  const text = (what: 'cert' | 'key'): string => {
    try {
      return readPem(source[what]);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      return refuse(`its ${what} cannot be read (${code ?? message})`, error);
    }
  };
  const cert = text('cert');
  const key = text('key');
  try {
    return { cert, key, context: createSecureContext({ cert, key, ...HARDENING }), names: namesOf(new X509Certificate(cert)) };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return refuse(
      code === 'ERR_OSSL_X509_KEY_VALUES_MISMATCH' ? 'the key is not the one of the certificate' : 'it is no pair that TLS can use',
      error,
    );
  }
};

type Choice = { readonly exact: ReadonlyMap<string, SecureContext>; readonly wildcard: ReadonlyMap<string, SecureContext> };

/** The first certificate that names a host is the one for it. */
const choiceOf = (pairs: readonly Pair[]): Choice => {
  const exact = new Map<string, SecureContext>();
  const wildcard = new Map<string, SecureContext>();
  for (const { context, names } of pairs) {
    for (const name of names) {
      const [map, rest] = name.startsWith('*.') ? [wildcard, name.slice(2)] : [exact, name];
      if (!map.has(rest)) map.set(rest, context);
    }
  }
  return { exact, wildcard };
};

const find = ({ exact, wildcard }: Choice, servername: string): SecureContext | undefined => {
  const name = servername.toLowerCase();
  const dot = name.indexOf('.');
  return exact.get(name) ?? (dot > 0 ? wildcard.get(name.slice(dot + 1)) : undefined);
};

const textsOf = (sources: readonly CertificateSource[]): string[] => sources.flatMap(({ cert, key }) => [cert, key]);

/**
 * Chooses by the name that a client asks for (SNI, RFC 6066 3); a name that no certificate has, or none, gets the first. `given` is not empty.
 * @throws AppError `not-configured` for a pair that cannot be used
 */
export const createSecureListener = (given: readonly CertificateSource[]): SecureListener => {
  let sources = given;
  let stamp = stampOf(textsOf(sources));
  const pairs = sources.map(read);
  let choice = choiceOf(pairs);

  const replace = (server: Server, next: readonly CertificateSource[]): void => {
    // Before the reading: what changes meanwhile is another change.
    const stamped = stampOf(textsOf(next));
    const [first, ...others] = next.map(read);
    server.setSecureContext({ cert: first!.cert, key: first!.key, ...HARDENING });
    choice = choiceOf([first!, ...others]);
    sources = next;
    stamp = stamped;
  };
  return {
    options: {
      cert: pairs[0]!.cert,
      key: pairs[0]!.key,
      ...HARDENING,
      SNICallback: (servername, done) => done(null, find(choice, servername)),
    },
    replace,
    refresh(server) {
      const now = stampOf(textsOf(sources));
      if (now === stamp) return false;
      // Told once, whether or not it can be used.
      stamp = now;
      replace(server, sources);
      return true;
    },
    get paths() {
      return textsOf(sources).filter((text) => !text.includes('-----BEGIN '));
    },
  };
};
