/** Exit codes of every command (DESIGN.md section 3): 0 yes, 1 the answer is no, 2 usage, unreachable, not found. */
export type ExitCode = 0 | 1 | 2;

/** Ends a command with a code and, unless the text is empty, one line on stderr. */
export class Exit extends Error {
  readonly code: ExitCode;
  constructor(code: ExitCode, message = '') {
    super(message);
    this.name = 'Exit';
    this.code = code;
  }
}

/** The answer is no: invalid, mismatch, refused move, conflict. */
export const answerNo = (message = ''): Exit => new Exit(1, message);

/** The question could not be asked: wrong usage, nobody there, no such thing. */
export const cannot = (message: string): Exit => new Exit(2, message);
