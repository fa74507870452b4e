import type { BacklogView, PartView, Readiness, StatusView, UpstreamView } from '@banyan/contracts/admin-api.ts';
import type { AdapterClient } from './adapter-client.ts';
import type { ContextViews } from './context-views.ts';
import { within } from './limit.ts';
import type { AdminDeps, Replica } from './ports.ts';

/** What each part gets to answer before it counts as away. */
const WAIT_MS = 1_000;

const AWAY = 'does not answer';

const storeState = (deps: AdminDeps): Promise<PartView> => {
  const { store } = deps;
  if (!store) return Promise.resolve({ configured: false, ok: true, detail: null });
  return within<PartView, PartView>(
    WAIT_MS,
    async () => {
      await store.ping();
      return { configured: true, ok: true, detail: null };
    },
    () => ({ configured: true, ok: false, detail: AWAY }),
  );
};

/** undefined = it could not be read. */
export const backlogNow = (deps: AdminDeps): Promise<BacklogView | null | undefined> =>
  within(
    WAIT_MS,
    () => deps.backlog(),
    () => undefined,
  );

/** One document with everything an operator looks at first. Parts that are away are said to be; the answer itself does not fail. */
export const statusOf = async (deps: AdminDeps, views: ContextViews, adapter: AdapterClient, startedAt: Date): Promise<StatusView> => {
  const config = deps.config();
  const adapterUsed = config.adapter.legacyDatabase !== null;
  const [contexts, store, backlog, adapterState, replicas] = await Promise.all([
    views.all(),
    storeState(deps),
    backlogNow(deps),
    !adapterUsed
      ? Promise.resolve<PartView>({ configured: false, ok: true, detail: null })
      : within<PartView, PartView>(
          WAIT_MS,
          async () => {
            const { status } = await adapter.ask('GET', '/readyz');
            return { configured: true, ok: status === 200, detail: status === 200 ? null : `answers ${status}` };
          },
          () => ({ configured: true, ok: false, detail: AWAY }),
        ),
    within<Replica[], Replica[]>(
      WAIT_MS,
      async () => (await deps.store?.replicas()) ?? [],
      () => [],
    ),
  ]);
  const age = deps.flags.ageMs();
  return {
    version: deps.version,
    startedAt: startedAt.toISOString(),
    uptimeSeconds: Math.max(0, Math.round((deps.now() - startedAt.getTime()) / 1000)),
    draining: deps.draining(),
    flagsAgeMs: Number.isFinite(age) ? Math.max(0, age) : null,
    contexts,
    store,
    stream: {
      configured: config.streams !== null,
      ok: backlog !== undefined,
      detail: backlog === undefined ? 'the backlog cannot be read' : null,
      backlog: backlog ?? null,
    },
    adapter: adapterState,
    upstreams: [...deps.upstreams()],
    replicas: replicas.map((replica) => ({
      id: replica.id,
      name: replica.name,
      startedAt: replica.startedAt.toISOString(),
      heartbeatAt: replica.heartbeatAt.toISOString(),
      alive: replica.alive,
    })),
  };
};

/** Addresses stay out: whoever asks needs no token. */
const upstreamCheck = ({ context, hosts }: UpstreamView): { name: string; ok: boolean; detail: string } => {
  const healthy = hosts.filter(({ state }) => state === 'healthy').length;
  const left = healthy === 0 ? '; all are tried' : '';
  return {
    name: context === null ? 'upstream legacy' : `upstream extracted ${context}`,
    ok: healthy === hosts.length,
    detail: `${healthy} of ${hosts.length} hosts in use${left}`,
  };
};

/** The first thing that is amiss; while draining that is the draining. */
const reasonIn = (checks: readonly { name: string; ok: boolean; detail: string }[]): string => {
  const wrong = checks.find((check) => !check.ok && check.name === 'draining') ?? checks.find((check) => !check.ok);
  return wrong ? `${wrong.name}: ${wrong.detail}` : '';
};

/** May traffic be sent here? Falling back to legacy is the job, so neither the store nor an upstream that is away makes it unready. */
export const readinessOf = async (deps: AdminDeps): Promise<Omit<Required<Readiness>, 'reason'> & { reason: string | null }> => {
  const store = await storeState(deps);
  const age = deps.flags.ageMs();
  const maxStale = deps.config().flags.maxStale;
  const fresh = !store.configured || age <= maxStale;
  const { listening, of } = deps.serving();
  const all = listening === of;
  const checks = [
    { name: 'config', ok: true, detail: `${Object.keys(deps.config().contexts).length} contexts` },
    {
      name: 'listener',
      ok: all,
      detail: of === 1 ? `${all ? 'accepts' : 'does not accept'} connections` : `${listening} of ${of} workers accept connections`,
    },
    { name: 'draining', ok: !deps.draining(), detail: deps.draining() ? 'stops after the requests in flight' : 'no' },
    {
      name: 'flags',
      ok: fresh,
      detail: Number.isFinite(age)
        ? `${Math.max(0, Math.round(age))} ms old, at most ${maxStale} ms`
        : 'never read from the store: last known or configured ones are served',
    },
    { name: 'store', ok: store.ok, detail: store.configured ? (store.detail ?? 'answers') : 'not configured' },
    ...deps.upstreams().map(upstreamCheck),
  ];
  const status = deps.draining() ? 'draining' : listening === 0 ? 'starting' : all && fresh && store.ok ? 'ready' : 'degraded';
  return { status, reason: status === 'ready' ? null : reasonIn(checks), checks };
};
