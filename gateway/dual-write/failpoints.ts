import { AppError } from '@banyan/contracts/errors.ts';

/** Where a process can be made to die, stop or fail, in the order of a command's life. */
export const FAILPOINTS = [
  'presend-before',
  'presend-after',
  'request-sent',
  'terminal-before',
  'terminal-after',
  'put-before',
  'put-partial',
  'put-after',
  'mark-before',
  'mark-after',
  'undo-before',
  'undo-sent',
  'undo-after',
] as const;
export type FailpointName = (typeof FAILPOINTS)[number];

const ACTIONS = ['kill', 'stop', 'error'] as const;
type Action = (typeof ACTIONS)[number];
type Rule = { readonly action: Action; readonly probability: number };

/** These have nobody to throw at, or stand for a failure of their own. */
const ONLY: Readonly<Partial<Record<FailpointName, readonly Action[]>>> = {
  'request-sent': ['kill', 'stop'],
  'undo-sent': ['kill', 'stop'],
  'put-partial': ['error'],
};

/** Thrown at a failpoint. Without a code, so that it looks like a connection that broke. */
class FailpointError extends Error {
  override readonly name = 'FailpointError';
}

export type Failpoints = {
  /** @throws FailpointError when it is its turn; may also end or stop the process */
  readonly hit: (name: FailpointName) => void;
  /** Is it its turn? For what fails in a way of its own. */
  readonly due: (name: FailpointName) => boolean;
  /** A few milliseconds from now, when nobody waits. */
  readonly later: (name: FailpointName, delayMs: number) => void;
};

export const NO_FAILPOINTS: Failpoints = { hit: () => undefined, due: () => false, later: () => undefined };

const bad = (part: string, expected: string): never => {
  throw new AppError('bad-request', `BANYAN_FAILPOINT: "${part}": expected ${expected}`);
};

const ruleOf = (part: string): [FailpointName, Rule] => {
  const [name = '', action = '', share = '1', ...more] = part.split(':');
  const known = FAILPOINTS.find((one) => one === name) ?? bad(part, `one of ${FAILPOINTS.join(', ')} before the first colon`);
  const allowed: readonly Action[] = ONLY[known] ?? ACTIONS;
  const chosen = allowed.find((one) => one === action) ?? bad(part, `${known}:${allowed.join('|')}:PROBABILITY`);
  const probability = Number(share);
  if (share === '' || !(probability >= 0 && probability <= 1) || more.length > 0) bad(part, 'a probability from 0 to 1');
  return [known, { action: chosen, probability }];
};

/**
 * `BANYAN_FAILPOINT=put-after:kill:0.02,mark-before:error:0.1`. For tests of what a crash leaves behind, never for production; without it nothing is ever
 * looked up. `kill` is SIGKILL, `stop` SIGSTOP (somebody must send SIGCONT), `error` an error as of a broken connection.
 * @param spec undefined or '' = none. @throws AppError `bad-request`
 */
export const createFailpoints = (
  spec: string | undefined,
  random: () => number = Math.random,
  signal: (name: 'SIGKILL' | 'SIGSTOP') => void = (name) => process.kill(process.pid, name),
): Failpoints => {
  if (spec === undefined || spec.trim() === '') return NO_FAILPOINTS;
  const rules = new Map(
    spec
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== '')
      .map(ruleOf),
  );
  const due = (name: FailpointName): Action | null => {
    const rule = rules.get(name);
    return rule !== undefined && random() < rule.probability ? rule.action : null;
  };
  const hit = (name: FailpointName): void => {
    const action = due(name);
    if (action === 'kill') signal('SIGKILL');
    else if (action === 'stop') signal('SIGSTOP');
    else if (action === 'error') throw new FailpointError(`failpoint ${name}`);
  };
  return {
    hit,
    due: (name) => due(name) !== null,
    later: (name, delayMs) => {
      if (rules.has(name)) setTimeout(() => hit(name), delayMs).unref();
    },
  };
};
