import { writeFileSync } from 'node:fs';
import { configJsonSchema, findConfigFile, formatFault, loadConfig } from '../config.ts';
import { askLine } from './ask.ts';
import { answerNo, cannot } from './exit.ts';
import { askAround } from './online.ts';
import { type Io, printJson, type Register } from './output.ts';

const FILE = 'banyan.yaml';
const SCHEMA = 'banyan.schema.json';
const DEFAULT_LEGACY = 'http://127.0.0.1:3000';

type Flags = { readonly legacy?: string; readonly yes?: boolean; readonly json?: boolean };

/** What a first file says; the rest are defaults, and a first context waits as a comment. */
const starter = (legacy: string): string => `# yaml-language-server: $schema=./${SCHEMA}
version: 1
listen: 127.0.0.1:8080            # where clients connect
admin: { listen: 127.0.0.1:8081 } # where operators connect; without admin.tokens only from this machine
legacy: { url: ${JSON.stringify(legacy)} } # the monolith: everything goes there until a context says otherwise
store: "\${DATABASE_URL:-}"        # postgres://...: flags that all gateways share, audit, ramp; empty = one gateway on its own
debugHeaders: true                # answers say who gave them: banyan-route: order;upstream=legacy;reason=STAGE;stage=legacy

# A first context: take the # away, and name paths of your own. \`banyan validate\` says what is wrong, \`banyan validate --online\` also who does not answer.
# contexts:
#   order:
#     match:
#       - { path: /api/orders/**, methods: [ GET, HEAD ] }   # queries: compared first, then moved step by step
#     else: legacy                                           # other methods under these paths
#     extracted: { url: http://127.0.0.1:4001 }              # the service that takes over
#     stickyKey: [ header:x-user-id, cookie:session ]        # keeps each client on one side
#     stage: shadow                                          # ask both sides, compare, answer from the monolith
`;

/** The same URL in its normal form. @throws Exit 2 */
const checked = async (legacy: string): Promise<string> => {
  const loaded = await loadConfig({ env: {}, overrides: { 'legacy.url': legacy } });
  if (loaded.ok) return loaded.config.legacy.urls[0] ?? legacy;
  throw cannot(`--legacy ${legacy}: ${loaded.faults[0] === undefined ? 'is no address' : formatFault(loaded.faults[0])}`);
};

const askLegacy = async (io: Io, flags: Flags): Promise<string> => {
  if (flags.legacy !== undefined) return flags.legacy;
  if (flags.yes === true) return DEFAULT_LEGACY;
  if (!io.interactive) throw cannot('which monolith? say --legacy URL, or --yes for the defaults');
  return (await askLine(`Address of the monolith [${DEFAULT_LEGACY}]: `)) || DEFAULT_LEGACY;
};

/** `banyan init`: a first banyan.yaml and its JSON Schema in this folder. Nothing that is there is touched: 1. */
export const registerInit: Register = (program, io) => {
  program
    .command('init')
    .description('write a first banyan.yaml into this folder; never over one that is there')
    .option('--legacy <url>', `the monolith (default: asks, with --yes ${DEFAULT_LEGACY})`)
    .option('--yes', 'ask nothing and take the defaults')
    .option('--json', 'one JSON document')
    .action(async (flags: Flags) => {
      const there = findConfigFile();
      if (there !== undefined) throw answerNo(`${there} is there already; nothing was written`);
      const legacy = await checked(await askLegacy(io, flags));
      const text = starter(legacy);
      const loaded = await loadConfig({ text, file: FILE });
      if (!loaded.ok) throw answerNo(`the file would be faulty: ${loaded.faults.map(formatFault).join('; ')}`);
      try {
        writeFileSync(FILE, text, { flag: 'wx' });
        writeFileSync(SCHEMA, `${JSON.stringify(configJsonSchema(), null, 2)}\n`);
      } catch (error) {
        throw cannot(`${FILE} cannot be written (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`);
      }
      const silent = (await askAround({ ...loaded.config, store: null })).filter(({ what, ok }) => what === 'legacy' && !ok);
      if (flags.json === true) return printJson(io, { file: FILE, schema: SCHEMA, legacy, reachable: silent.length === 0 });
      io.out(FILE);
      for (const { url, why } of silent) io.err(`note: nobody answers at ${url} yet (${why}); the gateway starts all the same`);
      io.err(`next: banyan run    (http://127.0.0.1:8080 is the monolith then; ${SCHEMA} helps your editor with ${FILE})`);
    });
};
