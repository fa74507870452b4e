/** What stands in the place of a secret. */
const MASK = '***';

const SECRET_KEYS = new Set(['token', 'key', 'value', 'secret']);
const SECRET_PARENTS: Readonly<Record<string, readonly string[]>> = {
  key: ['seal', 'tls', 'jwt', 'overrideToken', 'identity'],
  value: ['auth'],
  token: ['tokens', 'openfeature'],
  secret: ['webhooks'],
};

/** A copy of a configuration that may be shown: tokens, keys, the reconciler's header and passwords in addresses are `***`, functions are named. */
export const maskSecrets = (config: unknown): unknown => {
  const walk = (value: unknown, key: string, parent: string): unknown => {
    if (typeof value === 'function') return `[function ${value.name || 'anonymous'}]`;
    if (typeof value === 'string') {
      if (SECRET_KEYS.has(key) && SECRET_PARENTS[key]?.includes(parent)) return MASK;
      return value.replace(/^([a-z][a-z0-9+.-]*:\/\/[^/:@\s]*):[^@\s]*@/i, `$1:${MASK}@`).replace(/([?&]password=)[^&]*/gi, `$1${MASK}`);
    }
    if (Array.isArray(value)) return value.map((item) => walk(item, key, key));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, walk(item, name, Array.isArray(value) ? parent : key)]));
  };
  return walk(config, '', '');
};
