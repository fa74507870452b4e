import type { PairView, ParityView } from '@banyan/contracts/admin-api.ts';
import type { Stage } from '@banyan/contracts/vocabulary.ts';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { RampGate } from '../core/ramp/judge.ts';
import type { Window } from '../core/ramp/schedule.ts';

/** What the ramp asks of the rest of the gateway. */

export type RampFlag = {
  readonly name: string;
  readonly group: string | null;
  readonly stage: Stage;
  readonly canaryShareBp: number;
  readonly killed: boolean;
  readonly version: number;
  readonly since: Date;
  readonly updatedBy: string;
};

export type Webhook = {
  readonly url: string;
  readonly on: 'before' | 'after' | 'rollback';
  /** ms. */
  readonly timeout: number;
  readonly secret: string;
};

/** A context's `ramp:` block, and what of the rest of its settings matters here. */
export type RampSettings = RampGate & {
  /** Canary shares in basis points, rising. */
  readonly steps: readonly number[];
  /** ms between two looks. */
  readonly interval: number;
  readonly schedule: readonly Window[];
  /** Other people needed for each step. */
  readonly approvals: number;
  readonly webhooks: readonly Webhook[];
  /** Path that tells the version of the extracted service; null = not asked for. */
  readonly version: string | null;
  /** An OpenFeature provider decides who goes where: there is no share to raise. */
  readonly provided: boolean;
  /** Labels of the query routes. */
  readonly routes: readonly string[];
};

export type RampMove = {
  readonly stage: Stage;
  readonly canaryShareBp?: number | undefined;
  readonly reason: string;
  readonly actor: string;
  readonly ifVersion: number;
  readonly approved: true;
  readonly evidence: unknown;
  /** Runs in the transaction of the move; what it throws undoes it. */
  readonly also: (trx: Knex, moved: readonly RampFlag[]) => Promise<void>;
};

export type RampDeps = {
  readonly db: Knex;
  readonly databaseUrl: string;
  /** undefined = no such context, or nothing extracted that could answer. */
  readonly settings: (context: string) => RampSettings | undefined;
  readonly flags: {
    current(context: string): RampFlag | undefined;
    all(): readonly RampFlag[];
    /** Reads the store now: another process may have moved what is decided about here. */
    refresh(): Promise<void>;
  };
  /** @throws AppError as moves by people do */
  readonly move: (context: string, move: RampMove) => Promise<unknown>;
  readonly parity: {
    report(context: string): Promise<ParityView>;
    mismatches(context: string): Promise<readonly PairView[]>;
    /** Starts the window anew. */
    reset(context: string, at: Date): Promise<void>;
  };
  readonly stale: (context: string) => boolean;
  /** What the service answers at the path, in short. */
  readonly serviceVersion: (context: string, path: string) => Promise<string>;
  readonly onDecision: (context: string, outcome: 'advance' | 'hold' | 'rollback' | 'done') => void;
  readonly onWebhook: (on: Webhook['on'], result: 'ok' | 'refused' | 'failed') => void;
  readonly log: Logger;
};

/** Contexts that move as one. */
export type Unit = { readonly id: string; readonly contexts: readonly string[] };

export const unitOf = (flag: RampFlag, all: readonly RampFlag[]): Unit =>
  flag.group === null
    ? { id: `context:${flag.name}`, contexts: [flag.name] }
    : {
        id: `group:${flag.group}`,
        contexts: all
          .filter((other) => other.group === flag.group)
          .map(({ name }) => name)
          .sort(),
      };
