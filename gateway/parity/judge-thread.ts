import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { AppError } from '@banyan/contracts/errors.ts';
import type { Observation, Verdict } from '../core/parity/observation.ts';
import type { ParityRules } from '../core/parity/rules.ts';
import type { JudgedPair, NewPair } from './evidence.ts';
import type { ExemplarSource, Redaction } from './exemplar.ts';
import { fromText, type Said, type SentPair, type Task, type Text, toText } from './judge-wire.ts';

export type JudgeThreadOptions = {
  /** A task that takes longer ends the thread; the next one gets a new thread. Default 10,000. */
  readonly taskTimeoutMs?: number;
  /** Tasks waiting or under way. Default 64. */
  readonly maxTasks?: number;
  /** Bytes of bodies of these, as sent. Default 64 MiB. */
  readonly maxBytes?: number;
  /** The thread ends when nothing was asked of it for so long. Default 60,000. */
  readonly idleMs?: number;
  /** Told when a task is given up, and of a thread that cannot be started. */
  readonly onTrouble?: (why: string) => void;
};

/**
 * Judges answers that are too large to be looked at on the event loop, in a thread of its own that is started when first needed.
 * Rejects with `PairGivenUp`, or an AppError: `overloaded` when too much waits, `draining` after `stop`.
 */
export type JudgeThread = {
  readonly judge: (
    legacy: Observation,
    extracted: Observation,
    rules: ParityRules,
    bodyLimitBytes: number,
    now: number,
  ) => Promise<Verdict>;
  /** @param pair whose answers are as sent */
  readonly exemplar: (pair: JudgedPair, field: string, redaction: Redaction) => Promise<NewPair>;
  /** For tests and metrics. */
  readonly stats: () => { readonly tasks: number; readonly bytes: number; readonly started: number; readonly running: boolean };
  readonly stop: () => Promise<void>;
};

const TASK_TIMEOUT_MS = 10_000;
const MAX_TASKS = 64;
const MAX_BYTES = 64 * 1024 * 1024;
const IDLE_MS = 60_000;
/** To load the modules; on a busy machine that takes a while, and is nobody's fault. */
const START_TIMEOUT_MS = 60_000;
/** A tree takes some fifty times the bytes it was read from. */
const HEAP_MIB = 1_024;

/** `details.why` of `overloaded`. */
export const COMPARE_QUEUE_FULL = 'compare-queue-full';

/** Why a pair was given up, in one word. */
type GivenUpWhy = 'compare-timeout' | 'compare-failed';
export const GIVEN_UP: ReadonlySet<string> = new Set<GivenUpWhy>(['compare-timeout', 'compare-failed']);

/** The thread took too long over a pair, or broke. */
export class PairGivenUp extends AppError {
  readonly why: GivenUpWhy;
  constructor(why: GivenUpWhy, message: string) {
    super('unprocessable', message);
    this.why = why;
  }
}

type Job = {
  readonly task: Task;
  readonly bytes: number;
  readonly resolve: (text: Text) => void;
  readonly reject: (error: Error) => void;
};

/** Bytes of its own: a view would bring along all that it is a view of. */
const detached = (observation: Observation): Observation =>
  observation.body === null ? observation : { ...observation, body: new Uint8Array(observation.body) };

const buffersOf = ({ legacy, extracted }: SentPair): ArrayBuffer[] =>
  [legacy, extracted].flatMap(({ body }) => (body === null ? [] : [body.buffer as ArrayBuffer]));

/** Beside this file, in whichever form it is run. */
const PROGRAM = new URL(`./judge-worker${extname(import.meta.url)}`, import.meta.url);

/** Nothing runs before the first task. */
export const createJudgeThread = (options: JudgeThreadOptions = {}): JudgeThread => {
  const { taskTimeoutMs = TASK_TIMEOUT_MS, maxTasks = MAX_TASKS, maxBytes = MAX_BYTES, idleMs = IDLE_MS } = options;
  const versions = new WeakMap<ParityRules, number>();
  let lastVersion = 0;
  const waiting: Job[] = [];
  let job: Job | null = null;
  let worker: Worker | null = null;
  let ready = false;
  let bytes = 0;
  let started = 0;
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  const ending = new Set<Promise<unknown>>();

  const trouble = (why: string): void => options.onTrouble?.(why);

  const endThread = (): void => {
    clearTimeout(timer);
    const old = worker;
    worker = null;
    ready = false;
    if (old === null) return;
    old.removeAllListeners();
    // What it says while it goes concerns nobody.
    old.on('error', () => undefined);
    const gone = old.terminate().finally(() => ending.delete(gone));
    ending.add(gone);
  };

  const settle = (act: (job: Job) => void): void => {
    clearTimeout(timer);
    const ended = job;
    job = null;
    if (ended !== null) {
      bytes -= ended.bytes;
      act(ended);
    }
    next();
  };

  const giveUp = (why: GivenUpWhy, message: string): void => {
    endThread();
    trouble(message);
    settle(({ reject }) => reject(new PairGivenUp(why, message)));
  };

  const hear = (said: Said): void => {
    if (said.kind === 'ready') {
      ready = true;
      begin();
    } else if (said.kind === 'done') settle(({ resolve }) => resolve(said.result));
    else settle(({ reject }) => reject(new PairGivenUp('compare-failed', said.why)));
  };

  const startThread = (): void => {
    started++;
    worker = new Worker(PROGRAM, {
      name: 'banyan-judge',
      execArgv: ['--disable-warning=ExperimentalWarning'],
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
    });
    // What it does is nothing that a process lives for.
    worker.unref();
    worker.on('message', hear);
    worker.on('error', (error: unknown) =>
      giveUp('compare-failed', `the thread that judges large answers failed: ${error instanceof Error ? error.message : String(error)}`),
    );
    worker.on('exit', () => giveUp('compare-failed', 'the thread that judges large answers ended'));
    timer = setTimeout(() => giveUp('compare-failed', 'the thread that judges large answers did not start'), START_TIMEOUT_MS);
    timer.unref();
  };

  /** Hands the job to the thread; its time counts from now. */
  const begin = (): void => {
    clearTimeout(timer);
    if (job === null || worker === null) return;
    const message = `a pair was not judged within ${taskTimeoutMs} ms`;
    timer = setTimeout(() => giveUp('compare-timeout', message), taskTimeoutMs);
    timer.unref();
    worker.postMessage(job.task, buffersOf(job.task));
  };

  const next = (): void => {
    if (stopped || job !== null) return;
    job = waiting.shift() ?? null;
    if (job === null) {
      if (worker === null) return;
      timer = setTimeout(endThread, idleMs);
      timer.unref();
    } else if (worker === null) startThread();
    else if (ready) begin();
  };

  const run = (task: Task): Promise<Text> => {
    const size = (task.legacy.body?.length ?? 0) + (task.extracted.body?.length ?? 0);
    if (stopped) return Promise.reject(new AppError('draining', 'The gateway stops'));
    if (waiting.length + (job === null ? 0 : 1) >= maxTasks || bytes + size > maxBytes)
      return Promise.reject(
        new AppError('overloaded', 'Too many large answers wait to be judged', { details: { why: COMPARE_QUEUE_FULL } }),
      );
    bytes += size;
    return new Promise((resolve, reject) => {
      waiting.push({ task, bytes: size, resolve, reject });
      clearTimeout(job === null ? timer : undefined);
      next();
    });
  };

  const versionOf = (rules: ParityRules): number => {
    const known = versions.get(rules) ?? ++lastVersion;
    versions.set(rules, known);
    return known;
  };

  return {
    judge: async (legacy, extracted, rules, bodyLimitBytes, now) => {
      const { ignore, arrays, tolerance } = rules;
      const text = await run({
        kind: 'judge',
        legacy: detached(legacy),
        extracted: detached(extracted),
        bodyLimitBytes,
        rules: { ignore, arrays, tolerance },
        rulesVersion: versionOf(rules),
        now,
      });
      return fromText(text) as Verdict;
    },
    exemplar: async (pair, field, redaction) => {
      const { context, route, requestId, at, confirmed, primary, method, target, headers, answers, verdict } = pair;
      if (answers?.undecoded === undefined) throw new Error('the answers of this pair can be looked at where they are');
      const source: Omit<ExemplarSource, 'answers' | 'verdict'> = {
        context,
        route,
        requestId,
        at,
        confirmed,
        primary,
        method,
        target,
        headers,
      };
      const text = await run({
        kind: 'exemplar',
        legacy: detached(answers.legacy),
        extracted: detached(answers.extracted),
        bodyLimitBytes: answers.undecoded.bodyLimitBytes,
        pair: source,
        verdict: toText(verdict),
        field,
        redaction,
      });
      return fromText(text) as NewPair;
    },
    stats: () => ({ tasks: waiting.length + (job === null ? 0 : 1), bytes, started, running: worker !== null }),
    stop: async () => {
      stopped = true;
      endThread();
      const reason = new AppError('draining', 'The gateway stops');
      for (const { reject } of [...(job === null ? [] : [job]), ...waiting.splice(0)]) reject(reason);
      job = null;
      bytes = 0;
      await Promise.all(ending);
    },
  };
};
