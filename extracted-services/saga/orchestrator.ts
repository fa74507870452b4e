import { reasonOf, sleep } from '@banyan/kit/failures.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { Definition } from './definition.ts';
import { commandId, nextMove } from './domain.ts';
import type { Participants } from './participants.ts';
import { type Change, type Claimed, claim, defer, Overtaken, parkOverdue, record } from './store.ts';

export type OrchestratorDeps = {
  readonly db: Knex;
  readonly definitions: readonly Definition[];
  readonly participants: Participants;
  readonly log: Logger;
  /** How long a saga whose orchestrator died waits for the next one; each note renews it. Above twice a participant's time-out. Default 10,000. */
  readonly leaseMs?: number;
  /** How often somebody looks for sagas that are due. Default 200. */
  readonly pollMs?: number;
  /** Sagas under way in this process at once. Default 32. */
  readonly concurrency?: number;
  /** The wait after the first failed attempt; doubles up to 5 s. Default 100. */
  readonly retryMs?: number;
};

export type Orchestrator = { wake(): void; stop(): Promise<void> };

const MAX_RETRY_MS = 5000;
/** Between two looks for sagas that are over their limit. */
const WATCH_MS = 1000;

/**
 * Moves sagas on, step by step; each step is written down before it is asked and when it is answered, so any process may go on where one died. Any number of
 * orchestrators may run: a saga is claimed by one, and what an overtaken one still writes is refused.
 */
export const startOrchestrator = (deps: OrchestratorDeps): Orchestrator => {
  const { db, participants, log, leaseMs = 10_000, pollMs = 200, concurrency = 32, retryMs = 100 } = deps;
  const stopping = new AbortController();
  let nudge = new AbortController();
  const running = new Set<Promise<void>>();
  const waitMs = (attempts: number): number => Math.min(MAX_RETRY_MS, retryMs * 2 ** Math.min(attempts, 10)) * (0.5 + Math.random() / 2);

  /** One move of a saga; false when it has to wait, or has ended. */
  const move = async (saga: Claimed): Promise<Claimed | null> => {
    const definition = deps.definitions.find((each) => each.name === saga.definition && each.version === saga.version);
    const write = (change: Omit<Change, 'dueInMs'> & { dueInMs?: number }): Promise<void> =>
      record(db, saga.id, saga.token, { dueInMs: leaseMs, ...change });
    if (!definition) {
      await write({ state: 'parked', why: `there is no definition ${saga.definition} ${saga.version}`, event: { what: 'parked' } });
      return null;
    }
    if (saga.state !== 'running' && saga.state !== 'compensating') return null;
    const next = nextMove(definition, saga.state, saga.log, saga.late);
    switch (next.kind) {
      case 'end':
        await write({ state: next.state, event: { what: next.state } });
        return null;
      case 'park':
        log.error({ saga: saga.id, subject: saga.subject }, `parked: ${next.why}`);
        await write({ state: 'parked', why: next.why, event: { what: 'parked', detail: next.why } });
        return null;
      case 'turn':
        await write({ state: 'compensating', why: next.why, afresh: true, event: { what: 'turned', detail: next.why } });
        return {
          ...saga,
          state: 'compensating',
          log: Object.fromEntries(Object.entries(saga.log).map(([name, step]) => [name, { ...step, attempts: 0 }])),
        };
      case 'do': {
        const { name, participant, action } = next.step;
        const attempts = (saga.log[name]?.attempts ?? 0) + 1;
        const id = commandId(saga.id, name);
        await write({ step: { name, state: 'asked', attempts }, event: { what: next.again ? 'asked again' : 'asked', step: name } });
        // an outcome that is not known is looked up before the command is sent again
        const found = next.again ? await participants.ask(participant, id) : ({ outcome: 'absent' } as const);
        const answer =
          found.outcome === 'done' || found.outcome === 'refused'
            ? found
            : await participants.act(participant, id, action, saga.id, saga.data);
        const state = answer.outcome === 'unknown' ? 'asked' : answer.outcome;
        await write({
          step: { name, state, attempts },
          ...(state === 'asked' ? { dueInMs: waitMs(attempts) } : {}),
          event: { what: answer.outcome, step: name, ...(answer.why === undefined ? {} : { detail: answer.why }) },
        });
        return state === 'asked' ? null : { ...saga, log: { ...saga.log, [name]: { state, attempts } } };
      }
      case 'undo': {
        const { name, participant, action } = next.step;
        const before = saga.log[name] ?? { state: 'done' as const, attempts: 0 };
        const attempts = before.attempts + 1;
        const answer = await participants.undo(participant, commandId(saga.id, name), action, saga.id, saga.data);
        const undone = answer.outcome === 'done';
        await write({
          step: { name, state: undone ? 'undone' : before.state, attempts },
          ...(undone ? {} : { dueInMs: waitMs(attempts) }),
          event: { what: undone ? 'undone' : 'not undone', step: name, ...(answer.why === undefined ? {} : { detail: answer.why }) },
        });
        return undone ? { ...saga, log: { ...saga.log, [name]: { state: 'undone', attempts } } } : null;
      }
    }
  };

  const follow = async (claimed: Claimed): Promise<void> => {
    try {
      let saga: Claimed | null = claimed;
      while (saga && !stopping.signal.aborted) saga = await move(saga);
      if (saga) await record(db, saga.id, saga.token, { dueInMs: 0, event: { what: 'handed over' } });
    } catch (error) {
      if (error instanceof Overtaken) log.info({ saga: claimed.id }, 'another orchestrator has this saga');
      else {
        log.warn({ saga: claimed.id, error: reasonOf(error) }, 'a saga did not move; trying again');
        // else when its lease ends
        await defer(db, claimed.id, claimed.token, MAX_RETRY_MS * Math.random()).catch(() => undefined);
      }
    }
  };

  const watch = async (): Promise<void> => {
    for (const saga of await parkOverdue(db)) log.error({ saga }, 'parked: it has not come to an end in time');
  };

  const loop = async (): Promise<void> => {
    let watchedAt = Number.NEGATIVE_INFINITY;
    while (!stopping.signal.aborted) {
      nudge = new AbortController();
      let found = 0;
      try {
        if (performance.now() - watchedAt >= WATCH_MS) {
          await watch();
          watchedAt = performance.now();
        }
        const free = concurrency - running.size;
        const sagas = free > 0 ? await claim(db, free, leaseMs) : [];
        found = sagas.length;
        for (const saga of sagas) {
          const work: Promise<void> = follow(saga).finally(() => {
            running.delete(work);
            nudge.abort();
          });
          running.add(work);
        }
      } catch (error) {
        log.warn({ error: reasonOf(error) }, 'cannot look for sagas; trying again');
      }
      if (found === 0) await sleep(pollMs, AbortSignal.any([stopping.signal, nudge.signal]));
    }
    await Promise.all(running);
  };
  const looping = loop();
  return {
    wake: () => nudge.abort(),
    stop: () => {
      stopping.abort();
      return looping;
    },
  };
};
