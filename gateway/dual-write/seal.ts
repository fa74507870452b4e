import { createCipheriv, createDecipheriv, createHmac, randomBytes, scryptSync } from 'node:crypto';
import { AppError } from '@banyan/contracts/errors.ts';

/** AES-256-GCM with the ledger id as associated data: a sealed value copied to another row does not open. */
export type Seal = {
  /** @param purpose keeps a sealed request from being read as an answer. */
  readonly seal: (id: string, purpose: 'request' | 'response', plain: Uint8Array) => Buffer;
  /** @throws AppError `internal` when the value was not sealed by this key for this row and purpose. */
  readonly open: (id: string, purpose: 'request' | 'response', sealed: Uint8Array) => Buffer;
  /**
   * Who asked, as a keyed hash that cannot be turned back: from Authorization, else from the sticky key, else '' (nobody can be told apart).
   * The sticky key must come from the client itself, not be one that this gateway has just issued.
   */
  readonly scopeOf: (who: { authorization?: string | undefined; stickyKey?: string | undefined }) => string;
};

const VERSION = 1;
const IV = 12;
const TAG = 16;

/** @param secret `seal.key` of the configuration, the same on all replicas. */
export const createSeal = (secret: string): Seal => {
  const derived = scryptSync(secret, 'banyan.seal.v1', 64);
  const key = derived.subarray(0, 32);
  const scopeKey = derived.subarray(32);
  const associated = (id: string, purpose: string) => Buffer.from(`${id.toLowerCase()}:${purpose}`);
  return {
    seal: (id, purpose, plain) => {
      const iv = randomBytes(IV);
      const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(associated(id, purpose));
      const body = Buffer.concat([cipher.update(plain), cipher.final()]);
      return Buffer.concat([Buffer.from([VERSION]), iv, cipher.getAuthTag(), body]);
    },
    open: (id, purpose, sealed) => {
      try {
        const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
        if (bytes[0] !== VERSION) throw new Error(`unknown version ${bytes[0]}`);
        const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(1, 1 + IV), { authTagLength: TAG }).setAAD(
          associated(id, purpose),
        );
        decipher.setAuthTag(bytes.subarray(1 + IV, 1 + IV + TAG));
        return Buffer.concat([decipher.update(bytes.subarray(1 + IV + TAG)), decipher.final()]);
      } catch (cause) {
        throw new AppError('internal', `the sealed ${purpose} of ledger entry ${id} does not open: is seal.key the same on all replicas?`, {
          cause,
        });
      }
    },
    scopeOf: ({ authorization, stickyKey }) => {
      const who = authorization ? `authorization:${authorization}` : stickyKey ? `sticky:${stickyKey}` : '';
      return who === '' ? '' : createHmac('sha256', scopeKey).update(who).digest('base64url');
    },
  };
};
