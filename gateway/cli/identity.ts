import { identityKey, publicPem } from '../identity/keys.ts';
import { keptSealKey } from '../seal-key.ts';
import { cannot } from './exit.ts';
import { configFileOrExit, loadOrExit } from './load.ts';
import { groupOf, printJson, type Register } from './output.ts';

/** `banyan identity key`: what extracted services verify the identity header with. Asks nobody. */
export const registerIdentity: Register = (program, io) => {
  groupOf(program, 'identity', 'who is logged in, for extracted services')
    .command('key')
    .description('print the public key with which services verify the identity header')
    .option('--config <file>', 'default: banyan.yaml in this folder')
    .option('--json', 'one JSON document')
    .action(async (flags: { readonly config?: string; readonly json?: boolean }) => {
      const file = configFileOrExit(flags.config);
      const { config } = await loadOrExit(io, { file, dev: true, warn: false });
      const own = config.identity?.key ?? null;
      const secret = config.seal.key ?? keptSealKey(file);
      if (own === null && secret === null)
        throw cannot(`${file} has neither seal.key nor identity.key, and no gateway has made one beside it yet`);
      const pem = publicPem(identityKey(own, secret ?? ''));
      if (pem === null) throw cannot('identity.key is a shared secret: give the services that same secret as BANYAN_IDENTITY_KEY');
      if (flags.json === true) printJson(io, { publicKey: pem });
      else io.out(pem);
    });
};
