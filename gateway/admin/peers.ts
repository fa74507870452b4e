import type { Logger } from 'pino';

/** Marks a request that another gateway passes on, so that it is not passed on again; its value is the id of the kill. */
export const PEER_HEADER = 'banyan-peer';

const WAIT_MS = 2_000;

/**
 * Passes a kill on to the other gateways (DESIGN.md section 5), in the name of whoever asked. Without `now`: that one needs the store, which does
 * not ask twice. Never rejects.
 * @returns how many took it
 */
export const tellPeers = async (
  peers: readonly string[],
  path: string,
  { id, reason }: { readonly id: string; readonly reason: string },
  authorization: string | undefined,
  log: Logger,
): Promise<number> => {
  const told = await Promise.all(
    peers.map(async (peer) => {
      try {
        const response = await fetch(new URL(path, peer), {
          method: 'POST',
          headers: { 'content-type': 'application/json', [PEER_HEADER]: id, ...(authorization ? { authorization } : {}) },
          body: JSON.stringify({ reason }),
          redirect: 'error',
          signal: AbortSignal.timeout(WAIT_MS),
        });
        await response.body?.cancel();
        if (!response.ok) log.warn({ peer, status: response.status }, 'a peer refused the kill');
        return response.ok;
      } catch (error) {
        log.warn({ peer, err: error }, 'a peer could not be told of the kill');
        return false;
      }
    }),
  );
  return told.filter(Boolean).length;
};
