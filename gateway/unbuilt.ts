import { AppError } from '@banyan/contracts/errors.ts';
import type { Config } from './config.ts';

/** Keys that the configuration knows and this version does not honour yet: refused, because ignoring one would be worse. */
const unbuilt = (config: Config): string[] => (config.traffic.record === 'full' ? ['traffic.record: full'] : []);

/** @throws AppError `not-configured` naming every such key. */
export const refuseUnbuilt = (config: Config): void => {
  const found = unbuilt(config);
  if (found.length > 0) throw new AppError('not-configured', `this version does not honour ${found.join(', ')} yet: remove it`);
};
