import { createHmac, createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';

/** A configured key: what signs (null = it can only verify), what verifies, and the algorithms that fit it, the first of them to sign with. */
export type Key = {
  readonly sign: KeyObject | Uint8Array | null;
  readonly verify: KeyObject | Uint8Array;
  readonly algorithms: readonly [string, ...string[]];
};

/** What the public half of a PEM key may verify: never HMAC, with which a public key would be everybody's secret (RFC 8725 2.1). */
const algorithmsOf = (key: KeyObject): readonly [string, ...string[]] | null => {
  switch (key.asymmetricKeyType) {
    case 'rsa':
      return ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
    case 'ed25519':
      return ['EdDSA', 'Ed25519'];
    case 'ec': {
      const byCurve: Readonly<Record<string, string>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' };
      const algorithm = byCurve[key.asymmetricKeyDetails?.namedCurve ?? ''];
      return algorithm === undefined ? null : [algorithm];
    }
    default:
      return null;
  }
};

/** @param text PEM (public, private or certificate) or a shared secret. @throws AppError `not-configured` without the text in it */
export const readKey = (text: string, where: string): Key => {
  if (!text.includes('-----BEGIN ')) {
    const secret = new TextEncoder().encode(text);
    return { sign: secret, verify: secret, algorithms: ['HS256', 'HS384', 'HS512'] };
  }
  try {
    const sign = text.includes('PRIVATE KEY-----') ? createPrivateKey(text) : null;
    const verify = createPublicKey(text);
    const algorithms = algorithmsOf(verify);
    if (algorithms !== null) return { sign, verify, algorithms };
  } catch {
    // the error's text may quote the key
  }
  throw new AppError('not-configured', `${where} holds no RSA, EC or Ed25519 key that can be read`);
};

/** PKCS #8 head of an Ed25519 private key (RFC 8410 section 7): the 32 bytes of the seed follow. */
const ED25519_HEAD = Buffer.from('302e020100300506032b657004220420', 'hex');

/** The same Ed25519 key on every replica with this `secret`; its public half gives nothing of the secret away. */
const derivedKey = (secret: string): Key => {
  const seed = createHmac('sha256', secret).update('banyan.identity').digest();
  const sign = createPrivateKey({ key: Buffer.concat([ED25519_HEAD, seed]), format: 'der', type: 'pkcs8' });
  return { sign, verify: createPublicKey(sign), algorithms: ['EdDSA', 'Ed25519'] };
};

/** The key that signs `identity`: the configured one, else one derived from the seal's. @throws AppError `not-configured` when it cannot sign */
export const identityKey = (configured: string | null, secret: string): Key => {
  if (configured === null) return derivedKey(secret);
  const key = readKey(configured, 'identity.key');
  if (key.sign === null) throw new AppError('not-configured', 'identity.key is a public key: signing needs the private one');
  return key;
};

/** What the extracted services verify `identity` with: PEM of the public half; null for a shared secret. */
export const publicPem = ({ verify }: Key): string | null =>
  verify instanceof Uint8Array ? null : verify.export({ format: 'pem', type: 'spki' }).toString();
