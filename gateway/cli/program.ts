import { createRequire } from 'node:module';
import { AppError } from '@banyan/contracts/errors.ts';
import { type Command, CommanderError } from 'commander';
import { registerAdapter } from './adapter.ts';
import { registerAudit } from './audit.ts';
import { registerBucket } from './bucket.ts';
import { registerCapture } from './capture.ts';
import { registerCompletion } from './completion.ts';
import { registerConfig } from './config.ts';
import { registerDev } from './dev.ts';
import { registerDlq } from './dlq.ts';
import { registerDoctor } from './doctor.ts';
import { Exit } from './exit.ts';
import { registerExport } from './export.ts';
import { registerIdentity } from './identity.ts';
import { registerInit } from './init.ts';
import { registerKill } from './kill.ts';
import { registerLedger } from './ledger.ts';
import { newProgram } from './new-program.ts';
import { groupOf, type Io, processIo, type Register } from './output.ts';
import { registerOverride } from './override.ts';
import { registerParityCompare } from './parity-compare.ts';
import { registerParityLatency } from './parity-latency.ts';
import { registerParityReplay } from './parity-replay.ts';
import { registerParityReport } from './parity-report.ts';
import { registerRamp } from './ramp.ts';
import { registerRun } from './run.ts';
import { registerSaga } from './saga.ts';
import { registerStage } from './stage.ts';
import { registerStatus } from './status.ts';
import { registerValidate } from './validate.ts';

/** Every command, in the order in which the help shows them. */
const COMMANDS: readonly Register[] = [
  registerRun,
  registerDev,
  registerAdapter,
  registerInit,
  registerValidate,
  registerConfig,
  registerBucket,
  registerStatus,
  registerStage,
  registerKill,
  registerRamp,
  registerOverride,
  registerIdentity,
  registerParityLatency,
  registerParityReport,
  registerParityReplay,
  registerLedger,
  registerDlq,
  registerSaga,
  registerAudit,
  registerCapture,
  registerDoctor,
  registerExport,
  registerCompletion,
  (banyan) => registerParityCompare(groupOf(banyan, 'parity', 'what comparing both sides has shown')),
];

const versionOf = (): string => (createRequire(import.meta.url)('../package.json') as { version: string }).version;

const program = (io: Io): Command => {
  const banyan = newProgram(io)
    .description('Moves a monolith to services one bounded context at a time, with proof at every step.')
    .version(versionOf());
  for (const register of COMMANDS) register(banyan, io);
  return banyan;
};

const flushed = async (stream: NodeJS.WriteStream): Promise<void> =>
  new Promise((done) => void (stream.writable ? stream.write('', () => done()) : done()));

const io = processIo();
try {
  await program(io).parseAsync(process.argv);
} catch (error) {
  // Commander has said its own piece already, and its 1 for wrong usage is our 2.
  let code = 2;
  if (error instanceof CommanderError) code = error.exitCode === 0 ? 0 : 2;
  else if (error instanceof Exit) {
    code = error.code;
    if (error.message !== '') io.err(`banyan: ${error.message}`);
  } else if (error instanceof AppError) io.err(`banyan: ${error.message}`);
  else io.err(`banyan: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
  // What failed half-way may have left sockets or timers that would keep the process.
  process.exit(code);
}
