import { constants, setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';
import { compareObservations } from '../core/parity/compare.ts';
import type { Verdict } from '../core/parity/observation.ts';
import { type CompiledRules, compileRules } from '../core/parity/rules.ts';
import { decodePair } from './decode.ts';
import { exemplarOf } from './exemplar.ts';
import { fromText, type JudgeTask, type Said, type Task, type Text, toText, verdictText } from './judge-wire.ts';

/** The thread that judges large answers; `judge-thread.ts` starts it. It does one task after the other and keeps nothing but compiled rules. */

// Requests come first where there are not cores for both. On Linux this is about the calling thread alone; elsewhere it would be the whole process.
if (process.platform === 'linux') {
  try {
    setPriority(0, constants.priority.PRIORITY_BELOW_NORMAL / 2);
  } catch {
    // Not allowed to: then they share.
  }
}

const MOST_RULES = 100;
const compiled = new Map<number, CompiledRules>();

const rulesOf = ({ rules, rulesVersion, now }: JudgeTask): CompiledRules => {
  const known = compiled.get(rulesVersion);
  if (known && now < known.validUntilMs) return known;
  if (compiled.size >= MOST_RULES) compiled.clear();
  const fresh = compileRules(rules, now);
  compiled.set(rulesVersion, fresh);
  return fresh;
};

const done = async (task: Task): Promise<Text> => {
  const [legacy, extracted] = await decodePair(task.legacy, task.extracted, task.bodyLimitBytes);
  if (task.kind === 'judge') return verdictText(compareObservations(legacy, extracted, rulesOf(task)));
  const verdict = fromText(task.verdict) as Verdict;
  return toText(exemplarOf({ ...task.pair, verdict, answers: { legacy, extracted } }, task.field, task.redaction));
};

const say = (said: Said): void => parentPort?.postMessage(said);

parentPort?.on('message', (task: Task) => {
  done(task).then(
    (result) => say({ kind: 'done', result }),
    (error: unknown) => say({ kind: 'failed', why: error instanceof Error ? error.message : String(error) }),
  );
});
say({ kind: 'ready' });
