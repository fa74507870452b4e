import { backlogSchema, reasonedSchema, reasonSchema, reloadedSchema, statusSchema, streamsSchema } from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { z } from 'zod';
import { maskSecrets } from '../config.ts';
import type { AdapterClient } from './adapter-client.ts';
import type { ContextViews } from './context-views.ts';
import { type Endpoint, endpoint, ok, type Reply } from './endpoint.ts';
import type { AdminDeps, AuditEntry } from './ports.ts';
import { backlogNow, statusOf } from './status.ts';

const document = z.looseObject({});

/** The system as a whole: status, configuration, streams, capture. */
export const systemRoutes = (deps: AdminDeps, views: ContextViews, adapter: AdapterClient, startedAt: Date): Endpoint[] => {
  /** Without a store there is no audit; the log keeps it. */
  const record = async (entry: AuditEntry): Promise<void> => {
    deps.log.info({ actor: entry.actor, action: entry.action, reason: entry.reason }, 'changed by an operator');
    await deps.audit?.append(entry);
  };

  const capture = (path: string, role: 'operator' | 'admin', summary: string): Endpoint =>
    endpoint(`POST /capture/${path}`, {
      role,
      summary,
      body: reasonedSchema,
      answers: { 200: document },
      handle: async ({ body, actor }): Promise<Reply> => {
        const answer = await adapter.ask('POST', `/v1/capture/${path}`);
        // what was refused changed nothing
        if (answer.status < 300)
          await record({ actor, action: `capture-${path}`, context: null, before: null, after: answer.body, reason: body.reason });
        return answer;
      },
    });

  return [
    endpoint('GET /status', {
      role: 'viewer',
      summary: 'Version, contexts, store, stream, adapter and replicas in one document',
      answers: { 200: statusSchema },
      handle: async () => ok(await statusOf(deps, views, adapter, startedAt)),
    }),
    endpoint('GET /streams', {
      role: 'viewer',
      summary: 'The streams and what waits for them',
      answers: { 200: streamsSchema.extend({ backlog: backlogSchema.nullable() }) },
      handle: async () => {
        const { streams } = deps.config();
        const backlog = await backlogNow(deps);
        if (backlog === undefined)
          throw new AppError('store-unavailable', 'the backlog cannot be read: the store does not answer', { retryable: true });
        return ok({ facts: streams?.facts ?? null, commands: streams?.commands ?? null, region: streams?.region ?? null, backlog });
      },
    }),
    endpoint('GET /config', {
      role: 'viewer',
      summary: 'The effective configuration, secrets masked',
      answers: { 200: document },
      handle: async () => ok(maskSecrets(deps.config())),
    }),
    endpoint('POST /config/reload', {
      role: 'admin',
      summary: 'Reads the configuration file again; an invalid one changes nothing',
      // reading a file again decides nothing: its reason is in the file's history
      body: z.strictObject({ reason: reasonSchema.default('asked to read the file again') }),
      answers: { 200: reloadedSchema },
      handle: async ({ body, actor }) => {
        const result = await deps.reload();
        if (!result.ok)
          throw new AppError(
            'unprocessable',
            `the configuration before stays: ${result.faults.join('; ') || 'the file was refused'}`.slice(0, 4_000),
            {
              details: { faults: result.faults.slice(0, 100) },
            },
          );
        await record({ actor, action: 'config-reload', context: null, before: null, after: null, reason: body.reason });
        return ok(result);
      },
    }),
    endpoint('GET /capture', {
      role: 'viewer',
      summary: 'What the adapter captures of the legacy database',
      answers: { 200: document },
      handle: () => adapter.ask('GET', '/v1/capture'),
    }),
    capture('install', 'admin', 'Installs the capture triggers in the legacy database'),
    capture('remove', 'admin', 'Removes them'),
    capture('snapshot', 'operator', 'Publishes the rows that were there before capture'),
  ];
};
