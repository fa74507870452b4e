import { AppError } from '@banyan/contracts/errors.ts';
import type { Config } from './config.ts';

/** Keys that the configuration knows and this version does not honour yet: refused, because ignoring one would be worse. */
const unbuilt = (config: Config): string[] => {
  const found: string[] = [];
  if (config.traffic.record === 'full') found.push('traffic.record: full');
  for (const [name, context] of Object.entries(config.contexts)) {
    for (const { path, writes } of context.match) {
      if (writes.compensate !== null) found.push(`contexts.${name}: writes.compensate of ${path}`);
      if (writes.idempotency === 'database') found.push(`contexts.${name}: writes.idempotency: database of ${path}`);
    }
  }
  return found;
};

/** @throws AppError `not-configured` naming every such key. */
export const refuseUnbuilt = (config: Config): void => {
  const found = unbuilt(config);
  if (found.length > 0) throw new AppError('not-configured', `this version does not honour ${found.join(', ')} yet: remove it`);
};
