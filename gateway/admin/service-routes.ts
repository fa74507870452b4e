import {
  type DlqQuery,
  dlqQuerySchema,
  type LetterView,
  letterSchema,
  lettersSchema,
  pageOf,
  reasonedSchema,
  replayedSchema,
  sagaDetailSchema,
  sagaResolveSchema,
  sagaSchema,
  sagasQuerySchema,
} from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { z } from 'zod';
import { type Endpoint, endpoint, ok } from './endpoint.ts';
import type { AdminDeps } from './ports.ts';
import type { ServiceClient } from './service-client.ts';

/** A service counts its letters; the gateway puts the service's name before. */
const storedLetter = letterSchema.omit({ id: true, service: true }).extend({ position: z.number().int().min(1) });
const storedPage = pageOf(storedLetter);

const SAGA = 'saga';

const letterOf = (service: string, { position, ...letter }: z.output<typeof storedLetter>): LetterView => ({
  id: `${service}:${position}`,
  service,
  ...letter,
});

/** `order:7`. @throws AppError `bad-request` */
const placeOf = (text: string, what: 'id' | 'cursor'): { readonly service: string; readonly position: number } => {
  const found = /^([a-z][a-z0-9-]{0,62}):(\d{1,15})$/.exec(text);
  if (!found) throw new AppError('bad-request', `${what}: expected SERVICE:NUMBER, such as order:7`);
  return { service: found[1]!, position: Number(found[2]) };
};

const queryText = (values: Readonly<Record<string, string | number | undefined>>): string =>
  String(
    new URLSearchParams(
      Object.entries(values).flatMap(([key, value]): [string, string][] => (value === undefined ? [] : [[key, String(value)]])),
    ),
  );

/** What waits for a person in the services: letters that cannot be applied, sagas that cannot go on. */
export const serviceRoutes = (deps: AdminDeps, services: ServiceClient): Endpoint[] => {
  const record = async (action: string, actor: string, reason: string, context: string, before: object, after: object): Promise<void> => {
    deps.log.info({ actor, action, reason }, 'changed by an operator');
    const known = deps.flags.current(context) !== undefined;
    await deps.audit?.append({ actor, action, context: known ? context : null, before, after, reason });
  };

  const letters = async ({ service: only, limit, cursor }: DlqQuery) => {
    const from = cursor === undefined ? null : placeOf(cursor, 'cursor');
    const all = only === undefined ? services.names() : [only];
    const names = all.filter((name) => from === null || name >= from.service);
    const items: LetterView[] = [];
    const missing: { service: string; why: string }[] = [];
    let next: string | null = null;
    for (const name of names) {
      const after = name === from?.service ? from.position : undefined;
      // one more than there is room for shows whether there is a next page
      const path = `/_banyan/dlq?${queryText({ after: after || undefined, limit: Math.min(500, limit - items.length + 1) })}`;
      try {
        const page = await services.ask(name, { method: 'GET', path }, storedPage);
        items.push(...(page?.items ?? []).map((letter) => letterOf(name, letter)));
        if (items.length > limit || (page !== null && page.next !== null)) {
          items.splice(limit);
          next = items.at(-1)!.id;
          break;
        }
      } catch (error) {
        // asked about this one alone, its failure is the answer
        if (!(error instanceof AppError) || only !== undefined) throw error;
        missing.push({ service: name, why: error.message });
      }
    }
    return { items, next, missing };
  };

  const letter = async (id: string): Promise<LetterView & { position: number }> => {
    const { service, position } = placeOf(id, 'id');
    const found = await services.ask(service, { method: 'GET', path: `/_banyan/dlq/${position}` }, storedLetter);
    if (found === null) throw new AppError('not-found', `the service ${service} has no dead letters`);
    return { ...letterOf(service, found), position };
  };
  const summary = ({ id, key, eventId, error }: LetterView) => ({ id, key, eventId, error });

  const saga = async (id: string) => {
    const found = await services.ask(SAGA, { method: 'GET', path: `/_banyan/sagas/${encodeURIComponent(id)}` }, sagaDetailSchema);
    if (found === null) throw new AppError('not-found', 'what `services.saga` names is no saga service');
    return found;
  };

  return [
    endpoint('GET /dlq', {
      role: 'viewer',
      summary: 'Facts that services could not apply, by service and in their order',
      query: dlqQuerySchema,
      answers: { 200: lettersSchema },
      handle: async ({ query }) => ok(await letters(query)),
    }),
    endpoint('GET /dlq/:id', {
      role: 'viewer',
      summary: 'One dead letter',
      answers: { 200: letterSchema },
      handle: async ({ params }) => {
        const { position: _position, ...found } = await letter(params.id!);
        return ok(found);
      },
    }),
    endpoint('POST /dlq/:id/replay', {
      role: 'operator',
      summary: 'Applies what waits under the key of a letter, in its order, up to the first that fails again',
      body: reasonedSchema,
      answers: { 200: replayedSchema },
      handle: async ({ params, body, actor }) => {
        const found = await letter(params.id!);
        if (found.key === null)
          throw new AppError('conflict', `letter ${found.id} is no fact, so that nothing can be applied: skip it (${found.error})`);
        const question = { method: 'POST', path: '/_banyan/dlq/replay', body: { key: found.key } } as const;
        const done = await services.ask(found.service, question, replayedSchema);
        if (done === null) throw new AppError('not-found', `the service ${found.service} cannot replay`);
        await record('dlq-replay', actor, body.reason, found.service, summary(found), done);
        return ok(done);
      },
    }),
    endpoint('POST /dlq/:id/skip', {
      role: 'operator',
      summary: 'Gives one letter up, which is kept with the reason, and goes on with the rest of its key',
      body: reasonedSchema,
      answers: { 200: replayedSchema },
      handle: async ({ params, body, actor }) => {
        const found = await letter(params.id!);
        const question = {
          method: 'POST',
          path: '/_banyan/dlq/skip',
          body: { position: found.position, reason: body.reason, actor: actor.slice(0, 200) },
        } as const;
        const done = await services.ask(found.service, question, replayedSchema);
        if (done === null) throw new AppError('not-found', `the service ${found.service} cannot skip`);
        await record('dlq-skip', actor, body.reason, found.service, summary(found), done);
        return ok(done);
      },
    }),
    endpoint('GET /sagas', {
      role: 'viewer',
      summary: 'Sagas, newest first',
      query: sagasQuerySchema,
      answers: { 200: pageOf(sagaSchema) },
      handle: async ({ query }) => {
        const page = await services.ask(SAGA, { method: 'GET', path: `/_banyan/sagas?${queryText(query)}` }, pageOf(sagaSchema));
        if (page === null) throw new AppError('not-found', 'what `services.saga` names is no saga service');
        return ok(page);
      },
    }),
    endpoint('GET /sagas/:id', {
      role: 'viewer',
      summary: 'One saga: where each step stands, and everything that was asked and answered',
      answers: { 200: sagaDetailSchema },
      handle: async ({ params }) => ok(await saga(params.id!)),
    }),
    endpoint('POST /sagas/:id/resolve', {
      role: 'operator',
      summary: 'A person decides about a parked saga',
      body: sagaResolveSchema,
      answers: { 200: sagaDetailSchema },
      handle: async ({ params, body, actor }) => {
        const before = await saga(params.id!);
        const question = {
          method: 'POST',
          path: `/_banyan/sagas/${encodeURIComponent(before.id)}/resolve`,
          body: { as: body.as, reason: body.reason, actor: actor.slice(0, 200) },
        } as const;
        const after = await services.ask(SAGA, question, sagaDetailSchema);
        if (after === null) throw new AppError('not-found', `there is no saga ${before.id}`);
        await record(
          'saga-resolve',
          actor,
          body.reason,
          SAGA,
          { id: before.id, state: before.state, why: before.why },
          { id: after.id, state: after.state, as: body.as },
        );
        return ok(after);
      },
    }),
  ];
};
