import { createPrivateKey, createPublicKey } from 'node:crypto';
import type { CheckInput, Report } from './checks.ts';
import type { Path } from './document.ts';
import type { Config, ContextConfig } from './schema.ts';
import { paramsOf } from './syntax.ts';

const PEM_KEY = 'an RSA, EC or Ed25519 key as PEM text, or a secret of at least 32 characters';

const checkPem = (at: Path, given: string | null, signs: boolean, fault: Report): void => {
  if (given === null || !given.includes('-----BEGIN ')) return;
  try {
    const isPrivate = given.includes('PRIVATE KEY-----');
    if (signs && !isPrivate) fault(at, 'is a public key, which cannot sign', 'the private key', 'value');
    else if (isPrivate) createPrivateKey(given);
    else createPublicKey(given);
  } catch {
    fault(at, 'holds no key that can be read', PEM_KEY, 'value');
  }
};

/** Where tokens, keys and providers are configured, apart from contexts. */
export const checkWho = ({ config, says }: CheckInput, fault: Report, warn: Report): void => {
  const { jwt, overrideToken, identity, openfeature } = config;
  if (jwt !== null) {
    const said = (['jwks', 'key'] as const).filter((key) => jwt[key] !== null || says(['jwt', key]));
    if (said.length !== 1) fault(['jwt'], 'says both or neither of jwks and key', 'exactly one of jwks: URL and key: PEM or secret');
    checkPem(['jwt', 'key'], jwt.key, false, fault);
    if (jwt.jwks?.startsWith('http:') && !/^http:\/\/(?:localhost|127\.|\[::1\])/.test(jwt.jwks))
      warn(['jwt', 'jwks'], 'comes without TLS: whoever stands between can make tokens', undefined, 'value');
  }
  if (overrideToken !== null) {
    if (overrideToken.key === null && !says(['overrideToken', 'key']))
      fault(['overrideToken'], 'has no key', 'key: PEM, or a secret of at least 32 characters');
    checkPem(['overrideToken', 'key'], overrideToken.key, false, fault);
  }
  if (identity !== null) {
    checkPem(['identity', 'key'], identity.key, true, fault);
    if (UNFIT.has(identity.as.header) || identity.as.header.startsWith('banyan-'))
      fault(
        ['identity', 'as'],
        `${identity.as.header} has a meaning already`,
        'a header of its own such as header:x-banyan-identity',
        'value',
      );
    if (identity.key === null && config.seal.key === null && !says(['seal', 'key']))
      warn(['identity'], 'its key is made from seal.key, which is not set: every replica would sign with another one', undefined, 'key');
  }
  if (openfeature !== null && openfeature.provider === 'ofrep' && openfeature.url === null && !says(['openfeature', 'url']))
    fault(['openfeature', 'provider'], 'ofrep has to be asked somewhere', 'url: http://…', 'value');
};

/** Headers that a request cannot do without. */
const UNFIT: ReadonlySet<string> = new Set([
  'host',
  'cookie',
  'authorization',
  'content-length',
  'content-type',
  'connection',
  'transfer-encoding',
  'upgrade',
  'via',
  'forwarded',
  'idempotency-key',
  'x-request-id',
]);

/** Who a context's clients are, and who decides for them. */
export const checkClients = (config: Config, name: string, context: ContextConfig, fault: Report, warn: Report): void => {
  const at: Path = ['contexts', name];
  for (const [index, { when }] of context.overrides.entries())
    if (when.from === 'jwt' && config.jwt === null)
      fault(
        [...at, 'overrides', index, 'when'],
        'a token that nobody verifies decides nothing',
        'jwt: { jwks: URL } or jwt: { key: … } beside contexts',
        'value',
      );
  for (const [index, { from, name: parameter }] of context.stickyKey.entries()) {
    if (from === 'jwt' && config.jwt === null)
      warn([...at, 'stickyKey', index], 'without jwt: tokens are read unverified, so that clients choose their bucket', undefined, 'value');
    if (from === 'path' && !context.match.some((route) => paramsOf(route.path).includes(parameter)))
      fault(
        [...at, 'stickyKey', index],
        `no route of ${name} has the parameter :${parameter}`,
        'the name of a :parameter of its routes',
        'value',
      );
  }
  if (context.openfeature !== null && config.openfeature === null)
    fault([...at, 'openfeature'], 'there is no provider to ask', 'openfeature: { provider: … } beside contexts');
};
