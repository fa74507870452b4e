import { randomUUID } from 'node:crypto';
import {
  askedSchema,
  bpOf,
  contextSchema,
  flipSchema,
  flipStartedSchema,
  killSchema,
  pageOf,
  percentOf,
  rampChangeSchema,
  reasonedSchema,
  stageChangeSchema,
} from '@banyan/contracts/admin-api.ts';
import { AppError } from '@banyan/contracts/errors.ts';
import { z } from 'zod';
import { type ContextViews, flipView } from './context-views.ts';
import { type Call, type Endpoint, endpoint, ok, type Reply } from './endpoint.ts';
import { tellPeers } from './peers.ts';
import type { AdminDeps } from './ports.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** What the store itself throws is no fault of the request. */
const withStore = async (work: () => Promise<void>): Promise<void> => {
  try {
    await work();
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new AppError('store-unavailable', 'the store does not answer, nothing was changed', {
      cause: error,
      retryable: true,
      retryAfterSeconds: 2,
    });
  }
};

const uuid = z.uuid();
/** A gateway of an earlier version says no id. */
const killIdOf = (told: string | null): string | null => uuid.safeParse(told).data ?? null;

type KillCall = Call<{ readonly reason: string; readonly now?: boolean | undefined }, null>;

/** Contexts and what moves them: stage, kill, revive, flips. The audit row is written in the transaction of each move. */
export const contextRoutes = (deps: AdminDeps, views: ContextViews): Endpoint[] => {
  const killable = (): string[] =>
    deps.flags
      .all()
      .filter((flag) => flag.stage !== 'retired')
      .map((flag) => flag.name);

  const kill = async (names: readonly string[], path: string, call: KillCall): Promise<Readonly<Record<string, string>>> => {
    const by = { id: killIdOf(call.fromPeer) ?? randomUUID(), reason: call.body.reason };
    await deps.moves.kill(names, { ...by, now: call.body.now, actor: call.actor });
    const { peers } = deps.config().admin;
    if (call.fromPeer !== null || peers.length === 0) return {};
    const took = tellPeers(peers, path, by, call.authorization, deps.log);
    const pending = deps.flags.pendingKills();
    // the store tells the others, all but those that are cut off from it; while it cannot, the answer says how many we told
    if (!names.some((name) => pending.includes(name))) return {};
    return { 'banyan-peers': `${await took}/${peers.length}` };
  };

  const many = async (headers: Readonly<Record<string, string>> = {}): Promise<Reply> => ({
    status: 200,
    body: { items: await views.all(), next: null },
    headers,
  });

  return [
    endpoint('GET /contexts', {
      role: 'viewer',
      summary: 'All contexts',
      answers: { 200: pageOf(contextSchema) },
      handle: () => many(),
    }),
    endpoint('GET /contexts/:name', {
      role: 'viewer',
      summary: 'One context',
      answers: { 200: contextSchema },
      handle: async ({ params }) => ok(await views.one(params.name!)),
    }),
    endpoint('PUT /contexts/:name/stage', {
      role: 'operator',
      summary:
        'Moves a context, and the contexts of its group with it. Into and out of cutover: 202, the flip goes on. A promotion that needs approvals: 202 until enough people have asked for the same',
      body: stageChangeSchema,
      answers: { 200: contextSchema, 202: flipStartedSchema.or(askedSchema) },
      handle: async ({ params, body, actor }) => {
        const name = params.name!;
        views.flagOf(name);
        const moved = await deps.moves.stage(name, {
          stage: body.stage,
          canaryShareBp: body.percent === undefined ? undefined : bpOf(body.percent),
          reason: body.reason,
          force: body.force,
          ifVersion: body.ifVersion,
          actor,
        });
        if (moved.kind === 'flip') return { status: 202, body: { flip: { id: moved.id, state: moved.state } } };
        if (moved.kind === 'asked') {
          const { askedBy, needed, canaryShareBp } = moved;
          return { status: 202, body: { asked: { stage: body.stage, percent: percentOf(canaryShareBp), askedBy: [...askedBy], needed } } };
        }
        return ok(await views.one(name));
      },
    }),
    endpoint('POST /contexts/:name/kill', {
      role: 'operator',
      summary: 'Sends everything of a context to legacy at once; works without the store',
      body: killSchema,
      answers: { 200: contextSchema },
      handle: async (call) => {
        const name = call.params.name!;
        views.flagOf(name);
        const headers = await kill([name], `/api/v1/contexts/${encodeURIComponent(name)}/kill`, call);
        return { status: 200, body: await views.one(name), headers };
      },
    }),
    endpoint('POST /contexts/:name/revive', {
      role: 'operator',
      summary: 'Lifts the kill; the stage stays what it is',
      body: reasonedSchema,
      answers: { 200: contextSchema },
      handle: async ({ params, body, actor }) => {
        const name = params.name!;
        views.flagOf(name);
        await deps.moves.revive([name], { reason: body.reason, actor });
        return ok(await views.one(name));
      },
    }),
    endpoint('POST /contexts/:name/ramp', {
      role: 'operator',
      summary: 'Starts, pauses, resumes or aborts the ramp of a context and its group, or approves the step that waits',
      body: rampChangeSchema,
      answers: { 200: contextSchema },
      handle: async ({ params, body, actor }) => {
        const name = params.name!;
        views.flagOf(name);
        if (!deps.ramp) throw new AppError('not-configured', 'the store is not configured: a ramp needs one');
        const request = { action: body.action, reason: body.reason ?? `${body.action} without a reason given`, actor };
        await withStore(() => deps.ramp!.act(name, request));
        return ok(await views.one(name));
      },
    }),
    endpoint('POST /kill', {
      role: 'operator',
      summary: 'Kills every context that is not retired',
      body: killSchema,
      answers: { 200: pageOf(contextSchema) },
      handle: async (call) => many(await kill(killable(), '/api/v1/kill', call)),
    }),
    endpoint('POST /revive', {
      role: 'operator',
      summary: 'Lifts every kill',
      body: reasonedSchema,
      answers: { 200: pageOf(contextSchema) },
      handle: async ({ body, actor }) => {
        await deps.moves.revive(
          deps.flags.all().map((flag) => flag.name),
          { reason: body.reason, actor },
        );
        return many();
      },
    }),
    endpoint('GET /flips/:id', {
      role: 'viewer',
      summary: 'How far a hand-over of write ownership got',
      answers: { 200: flipSchema },
      handle: async ({ params }) => {
        const id = params.id!;
        const flip = UUID.test(id) ? await deps.flips?.get(id) : undefined;
        if (!flip) throw new AppError('not-found', `no flip has the id ${JSON.stringify(id.slice(0, 100))}`);
        return ok(flipView(flip));
      },
    }),
  ];
};
