import type { UpstreamView } from '@banyan/contracts/admin-api.ts';
import type { HostState } from '@banyan/contracts/vocabulary.ts';

type Host = UpstreamView['hosts'][number];

const WORST: readonly HostState[] = ['unhealthy', 'ejected', 'healthy'];

const mergeHost = (own: Host, seen: readonly Host[]): Host => {
  const worst = WORST.map((state) => seen.filter((host) => host.state === state)).find((hosts) => hosts.length > 0);
  const [first] = worst ?? [];
  if (!worst || !first) return own;
  if (first.state === 'healthy' || worst.length === seen.length) return first;
  const part = `for ${worst.length} of ${seen.length} workers`;
  return { ...first, detail: first.detail === null ? part : `${first.detail} (${part})` };
};

/** What several workers see of the upstreams in `own`: of each host its worst state, and how many see it so when not all do. Pure. */
export const mergeUpstreams = (own: readonly UpstreamView[], seen: readonly (readonly UpstreamView[])[]): UpstreamView[] =>
  own.map((upstream) => {
    const same = seen.flatMap((one) =>
      one.filter(({ context, upstream: side }) => context === upstream.context && side === upstream.upstream),
    );
    return {
      ...upstream,
      hosts: upstream.hosts.map((host) =>
        mergeHost(
          host,
          same.flatMap(({ hosts }) => hosts.filter(({ url }) => url === host.url)),
        ),
      ),
    };
  });
