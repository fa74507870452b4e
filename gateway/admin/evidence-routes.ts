import {
  auditQuerySchema,
  auditRowSchema,
  auditVerdictSchema,
  hoursQuerySchema,
  ledgerEntrySchema,
  ledgerQuerySchema,
  pageOf,
  pairDetailSchema,
  pairSchema,
  pairsQuerySchema,
  parityHourSchema,
  parityLatencySchema,
  paritySchema,
  resolveSchema,
} from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import type { ContextViews } from './context-views.ts';
import { type Endpoint, endpoint, ok } from './endpoint.ts';
import type { AdminDeps } from './ports.ts';

const missing = (what: string, id: string): AppError =>
  new AppError('not-found', `no ${what} has the id ${JSON.stringify(id.slice(0, 100))}`);

const present = <T>(part: T | null, needs: string): T => {
  if (part === null) throw new AppError('not-configured', needs);
  return part;
};

/** What was compared, what was written, what was changed: parity, pairs, ledger, audit. */
export const evidenceRoutes = (deps: AdminDeps, views: ContextViews): Endpoint[] => {
  const parity = () => present(deps.parity, 'nothing is compared here: the configuration names no contexts');
  const ledger = () => present(deps.ledger, 'there is no ledger here: it needs a store and contexts with events');
  const audit = () => present(deps.audit, 'there is no audit here: it needs a store');

  return [
    endpoint('GET /contexts/:name/parity', {
      role: 'viewer',
      summary: 'Parity of a context since its last change of stage',
      answers: { 200: paritySchema },
      handle: async ({ params }) => {
        const name = views.flagOf(params.name!).name;
        const report = await parity().parityReport(name);
        if (!report) throw new AppError('not-found', `there is no parity report of ${name}`);
        return ok(report);
      },
    }),
    endpoint('GET /contexts/:name/parity/hours', {
      role: 'viewer',
      summary: 'Parity of a context hour by hour, also across changes of stage; newest first',
      query: hoursQuerySchema,
      answers: { 200: pageOf(parityHourSchema) },
      handle: async ({ params, query }) => {
        const context = views.flagOf(params.name!).name;
        const hours = await parity().parityHours({ context, ...query });
        if (!hours) throw new AppError('not-found', `there is no parity report of ${context}`);
        return ok(hours);
      },
    }),
    endpoint('GET /contexts/:name/parity/latency', {
      role: 'viewer',
      summary: 'How long both sides take for the same queries, by route, with a Mann-Whitney test; since the last change of stage',
      answers: { 200: pageOf(parityLatencySchema) },
      handle: async ({ params }) => {
        const name = views.flagOf(params.name!).name;
        const found = await parity().parityLatency(name);
        if (!found) throw new AppError('not-found', `there is no parity report of ${name}`);
        return ok(found);
      },
    }),
    endpoint('GET /pairs', {
      role: 'viewer',
      summary: 'Compared pairs, newest first',
      query: pairsQuerySchema,
      answers: { 200: pageOf(pairSchema) },
      handle: async ({ query }) => ok(await parity().pairs(query)),
    }),
    endpoint('GET /pairs/:id', {
      role: 'viewer',
      summary: 'Both answers of a pair, redacted, with their differences',
      answers: { 200: pairDetailSchema },
      handle: async ({ params }) => {
        const pair = await parity().pair(params.id!);
        if (!pair) throw missing('pair', params.id!);
        return ok(pair);
      },
    }),
    endpoint('GET /ledger', {
      role: 'viewer',
      summary: 'Dual writes, newest first',
      query: ledgerQuerySchema,
      answers: { 200: pageOf(ledgerEntrySchema) },
      handle: async ({ query }) => ok(await ledger().list(query)),
    }),
    endpoint('GET /ledger/:id', {
      role: 'viewer',
      summary: 'One dual write',
      answers: { 200: ledgerEntrySchema },
      handle: async ({ params }) => {
        const entry = await ledger().get(params.id!);
        if (!entry) throw missing('ledger entry', params.id!);
        return ok(entry);
      },
    }),
    endpoint('POST /ledger/:id/resolve', {
      role: 'operator',
      summary: 'A person decides what became of a parked write',
      body: resolveSchema,
      answers: { 200: ledgerEntrySchema },
      handle: async ({ params, body, actor }) => {
        const before = await ledger().get(params.id!);
        if (!before) throw missing('ledger entry', params.id!);
        const after = await ledger().resolve(before.id, body.as, body.reason, actor);
        await audit().append({
          actor,
          action: 'ledger-resolve',
          context: before.context,
          before: { id: before.id, state: before.state },
          after: { id: after.id, state: after.state, as: body.as },
          reason: body.reason,
        });
        return ok(after);
      },
    }),
    endpoint('GET /audit', {
      role: 'viewer',
      summary: 'Who changed what and why, newest first',
      query: auditQuerySchema,
      answers: { 200: pageOf(auditRowSchema) },
      handle: async ({ query }) => ok(await audit().list(query)),
    }),
    endpoint('GET /audit/verify', {
      role: 'viewer',
      summary: 'Checks the hash chain of the audit and names the rows that break it',
      answers: { 200: auditVerdictSchema },
      handle: async () => ok(await audit().verify()),
    }),
  ];
};
