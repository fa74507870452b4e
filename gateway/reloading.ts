import { AppError } from '@banyan/contracts/errors.ts';
import type { AdminDeps } from './admin/ports.ts';
import { type Config, formatFault, loadConfig } from './config.ts';
import type { Member } from './member.ts';
import { refuseNarrowing } from './narrowing.ts';
import { refuseUnbuilt } from './unbuilt.ts';

export type ReloadingDeps = {
  readonly member: Member;
  /** undefined = there is nothing to read again. */
  readonly configFile: string | undefined;
  readonly overrides: Readonly<Record<string, unknown>>;
  /** Runs before the new configuration counts; what it throws leaves everything as it was. */
  readonly prepare: (config: Config) => void;
  /** Hands it to the workers, if there are any; what it gives are warnings. */
  readonly publish: (config: Config) => Promise<readonly string[]>;
};

/** Reads the file again: valid = swapped whole, here and in every worker; invalid = the old one stays. One after the other. */
export const createReloading = (deps: ReloadingDeps): AdminDeps['reload'] => {
  const { member, configFile } = deps;
  const { log, metrics } = member;
  let generation = 1;
  metrics.configLoaded(generation);

  const reloadNow: AdminDeps['reload'] = async () => {
    if (configFile === undefined) throw new AppError('not-configured', 'there is no configuration file to read again');
    const result = await loadConfig({ file: configFile, overrides: deps.overrides });
    const warnings = result.warnings.map(formatFault);
    if (!result.ok) {
      metrics.configRefused();
      for (const fault of result.faults) log.error({ fault: formatFault(fault) }, 'the new configuration is refused; the old one stays');
      return { ok: false, faults: result.faults.map(formatFault), warnings };
    }
    try {
      refuseUnbuilt(result.config);
      refuseNarrowing(member.config(), result.config, member.flags.current);
      await member.adopt(result.config, deps.prepare);
    } catch (error) {
      metrics.configRefused();
      throw error;
    }
    warnings.push(...(await deps.publish(result.config)));
    metrics.configLoaded(++generation);
    log.info({ generation }, 'configuration reloaded');
    return { ok: true, faults: [], warnings };
  };

  let last: Promise<unknown> = Promise.resolve();
  return () => {
    const turn = last.then(reloadNow, reloadNow);
    last = turn.catch(() => undefined);
    return turn;
  };
};
