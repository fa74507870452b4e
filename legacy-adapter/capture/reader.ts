import { checkEventData } from '@banyan/contracts/events/index.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { Aggregate, Translation } from '../ports.ts';
import { type Installed, installation } from './install.ts';
import { type Observation, observe } from './observe.ts';
import { headSubjects, type PendingOptions, type PendingSubject, readPending, type Subject } from './pending.ts';

export type ReaderDeps = {
  readonly legacy: Knex;
  readonly store: Knex;
  readonly translation: Translation;
  /** Those of the translation's aggregates whose contexts are configured. */
  readonly aggregates: readonly Aggregate[];
  readonly publisherOf: (context: string) => 'ledger' | 'capture';
  readonly log: Logger;
  readonly pending?: PendingOptions;
  /** Called between the store's commits and the removal of the settled changes; a test lets it throw. */
  readonly beforeSettle?: () => Promise<void>;
};

/** A subject whose oldest change could not be told yet; its later changes wait behind it. */
export type Held = Subject & { readonly sinceMs: number; readonly error: string | null };

export type Reader = {
  /** One turn: reads, tells, removes. Answers after how many milliseconds to come again. */
  readonly turn: (signal: AbortSignal) => Promise<number>;
  /** Oldest first. */
  readonly held: () => readonly Held[];
};

/** One adapter reads at a time; another one stands by. Arbitrary, but must never change. */
const READER_LOCK = 7_311_441;
const IDLE_MS = 50;
const WAIT_MS = 100;
const ERROR_MS = 5000;
const NOT_INSTALLED_MS = 500;
const MAX_HELD = 2000;
const DEFAULT_PENDING: PendingOptions = { headRows: 200, rowsPerSubject: 200 };

type Due = Held & { readonly at: number };
type Told = { readonly observation: Observation; readonly settles: readonly bigint[] };
type Plan = {
  readonly subject: PendingSubject;
  readonly told: readonly Told[];
  readonly error: string | null;
  readonly free: readonly bigint[];
};

const nameOf = ({ context, subject }: Subject): string => `${context}/${subject}`;
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Reads `banyan_capture.change` and tells the store. Keeps no position: what is settled is deleted, what is not is read again. */
export const createReader = (deps: ReaderDeps): Reader => {
  const { legacy, store, translation, aggregates, log } = deps;
  const options = deps.pending ?? DEFAULT_PENDING;
  const held = new Map<string, Due>();

  const hold = (subject: Subject, error: string | null): void => {
    const name = nameOf(subject);
    const before = held.get(name);
    if (error !== null && before?.error !== error)
      log.error({ context: subject.context, subject: subject.subject, error }, 'a change cannot be told: its aggregate is held');
    const now = performance.now();
    held.set(name, {
      context: subject.context,
      subject: subject.subject,
      sinceMs: before?.sinceMs ?? now,
      error,
      at: now + (error === null ? WAIT_MS : ERROR_MS),
    });
  };

  /** What to tell about a subject up to the first step that cannot be translated. Steps that mean nothing settle with the next one that does. */
  const plan = (installed: Installed, subject: PendingSubject): Plan => {
    const told: Told[] = [];
    let free: bigint[] = [];
    for (const step of subject.steps) {
      const { context } = subject;
      try {
        const imported = step.kind === 'snapshot' ? translation.imported(context, step.after) : null;
        const findings =
          step.kind === 'snapshot'
            ? imported === null
              ? []
              : [imported]
            : translation.findings({ context, before: step.before, after: step.after, unseen: subject.unseen });
        const ids = [...free, ...step.changes.map(({ id }) => id)];
        findings.forEach(({ kind, type, data, key }, index) => {
          const changeId = `${installed.databaseId}:${step.lastId}:${type}`;
          const observation = {
            context,
            publisher: deps.publisherOf(context),
            kind,
            type,
            subject: subject.subject,
            data: checkEventData(type, data),
            key,
            changeId,
          };
          told.push({ observation, settles: index === findings.length - 1 ? ids : [] });
        });
        free = findings.length === 0 ? ids : [];
      } catch (error) {
        return { subject, told, error: messageOf(error), free };
      }
    }
    return { subject, told, error: null, free };
  };

  /** Tells all plans and answers the ids of the changes that are settled. */
  const tell = async (plans: readonly Plan[]): Promise<bigint[]> => {
    const progress = await observe(
      store,
      plans.map(({ told }) => told.map(({ observation }) => observation)),
    );
    return plans.flatMap(({ subject, told, error, free }, index) => {
      const { told: count, stopped } = progress[index]!;
      if (stopped !== null) hold(subject, stopped === 'wait' ? null : stopped.error);
      else if (error !== null) hold(subject, error);
      else held.delete(nameOf(subject));
      return [...told.slice(0, count).flatMap(({ settles }) => settles), ...(stopped === null ? free : [])];
    });
  };

  const readAndTell = (installed: Installed): Promise<'standby' | 'replaced' | 'idle' | 'more'> =>
    legacy.transaction(
      async (trx) => {
        const { rows: lock } = await trx.raw<{ rows: { held: boolean }[] }>('select pg_try_advisory_xact_lock(?) as held', [READER_LOCK]);
        if (!lock[0]!.held) return 'standby';
        // Removed and installed again: ids began anew, and under the old name they would pass for changes seen before.
        const { rows: meta } = await trx.raw<{ rows: { database_id: string }[] }>('select database_id from banyan_capture.meta');
        if (meta[0]?.database_id !== installed.databaseId) return 'replaced';
        const now = performance.now();
        const due = [...held.values()].filter(({ at }) => at <= now).slice(0, options.headRows);
        const fresh = held.size >= MAX_HELD ? [] : await headSubjects(trx, [...held.keys()], options.headRows);
        const pending = await readPending(trx, installed, aggregates, [...due, ...fresh], options);
        for (const subject of pending) if (subject.steps.length === 0) held.delete(nameOf(subject));
        const settled = await tell(pending.map((subject) => plan(installed, subject)));
        if (settled.length === 0) return 'idle';
        await deps.beforeSettle?.();
        await trx.raw('delete from banyan_capture.change where id = any(?::bigint[])', [settled.map(String)]);
        return 'more';
      },
      { isolationLevel: 'repeatable read' },
    );

  let installed: Installed | null = null;
  const turn = async (): Promise<number> => {
    try {
      installed ??= await installation(legacy, aggregates);
      if (installed === null) return NOT_INSTALLED_MS;
      const { rows } = await legacy.raw<{ rows: { any: boolean }[] }>('select exists (select from banyan_capture.change) as any');
      if (!rows[0]!.any) {
        held.clear();
        return IDLE_MS;
      }
      const did = await readAndTell(installed);
      if (did === 'replaced') installed = null;
      // Held subjects alone must not make the loop spin, and a standby has nothing to do until the other adapter stops.
      return did === 'more' ? 0 : IDLE_MS;
    } catch (error) {
      installed = null;
      throw error;
    }
  };

  return { turn, held: () => [...held.values()].sort((a, b) => a.sinceMs - b.sinceMs).map(({ at: _, ...rest }) => rest) };
};
