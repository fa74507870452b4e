import { setFlagsFromString } from 'node:v8';

/** Preloaded into a gateway whose garbage is to be measured: each collection becomes a line of its stdout, read by `heap-log.ts`. */
setFlagsFromString('--trace-gc');
