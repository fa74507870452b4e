import { Argument, InvalidArgumentError } from 'commander';
import { answerNo } from './exit.ts';
import { type Front, frontOf } from './export/front.ts';
import { haproxyOf } from './export/haproxy.ts';
import { nginxOf } from './export/nginx.ts';
import { configFileOrExit, loadOrExit } from './load.ts';
import { printJson, type Register } from './output.ts';

const KINDS: Readonly<Record<string, (front: Front) => string>> = { nginx: nginxOf, haproxy: haproxyOf };

type Flags = {
  readonly config?: string;
  readonly listen: string;
  readonly gateway?: readonly string[];
  readonly dev?: boolean;
  readonly json?: boolean;
};

const ADDRESS = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]|\*):\d{1,5}$/;
const address = (text: string): string => {
  if (!ADDRESS.test(text)) throw new InvalidArgumentError('Expected HOST:PORT such as 10.0.0.1:8080.');
  return text;
};
const gateway = (text: string, before: readonly string[] = []): readonly string[] => [...before, address(text)];

/** `banyan export nginx|haproxy`: a front proxy that shows the gateway only what contexts own. From the file alone. */
export const registerExport: Register = (program, io) => {
  program
    .command('export')
    .description(
      'print the configuration of a proxy in front that sends only what contexts own through the gateway, and the rest to the monolith',
    )
    .addArgument(new Argument('<kind>', 'of which proxy').choices(Object.keys(KINDS)))
    .option('--config <file>', 'default: banyan.yaml in this folder')
    .option('--listen <host:port>', 'where the proxy listens', address, '*:80')
    .option(
      '--gateway <host:port>',
      'a gateway, as the proxy reaches it; may be repeated (default: the first `listen` without TLS)',
      gateway,
    )
    .option('--dev', 'as `banyan dev` reads it')
    .option('--json', 'one JSON document')
    .action(async (kind: string, flags: Flags) => {
      const { config } = await loadOrExit(io, { file: configFileOrExit(flags.config), dev: flags.dev ?? false, warn: false });
      if (config.legacy.urls.length === 0) throw answerNo('legacy.url says nothing: there is no monolith that the rest could go to');
      try {
        const front = frontOf(config, { listen: flags.listen, gateways: flags.gateway ?? [] });
        const text = KINDS[kind]!(front);
        if (flags.json === true) printJson(io, { kind, gateways: front.gateways, owned: front.owned, text });
        else io.out(text);
      } catch (error) {
        if (error instanceof RangeError) throw answerNo(error.message);
        throw error;
      }
    });
};
