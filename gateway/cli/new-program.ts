import { Command } from 'commander';
import type { Io } from './output.ts';

/** An empty program that writes to `io`, says wrong usage in one line, and throws a CommanderError instead of ending the process. */
export const newProgram = (io: Io): Command =>
  new Command('banyan').exitOverride().configureOutput({
    writeOut: (text) => io.out(text),
    writeErr: (text) => io.err(text),
    // One line, also where commander puts its suggestion on a second one.
    outputError: (text, write) =>
      write(
        `banyan: ${text
          .replace(/^error: /, '')
          .trim()
          .replaceAll(/\s*\n\s*/g, ' ')}\n`,
      ),
  });
