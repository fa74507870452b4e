import { createInterface } from 'node:readline/promises';
import { cannot } from './exit.ts';

/** One question on the terminal, which is on stderr, so that stdout stays data. @throws Exit 2 when the answer is Ctrl-C or Ctrl-D */
export const askLine = async (question: string): Promise<string> => {
  const line = createInterface({ input: process.stdin, output: process.stderr });
  const left = new AbortController();
  line.once('close', () => left.abort());
  try {
    return (await line.question(question, { signal: left.signal })).trim();
  } catch {
    process.stderr.write('\n');
    throw cannot('nothing was answered, and nothing was changed');
  } finally {
    line.close();
  }
};
