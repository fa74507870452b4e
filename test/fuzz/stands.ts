import { startGateway } from '../conformance/gateways.ts';
import type { RequestStand } from './request-fuzz.ts';
import { echo, openFuzzUpstream } from './upstream.ts';

export type Mode = 'plain' | 'diverted';

/** A gateway with upstreams that echo. */
export const openRequestStand = async (mode: Mode, patienceMs: number): Promise<RequestStand & { stop(): Promise<void> }> => {
  let nonces = 0;
  const nonce = (): number => ++nonces;
  const legacy = await openFuzzUpstream(echo, nonce);
  const extracted = mode === 'plain' ? null : await openFuzzUpstream(echo, nonce);
  const gateway = await startGateway(mode, { legacyPort: legacy.port, extractedPort: extracted?.port ?? 0 });
  return {
    port: gateway.port,
    upstreams: extracted === null ? [legacy] : [legacy, extracted],
    buffers: mode === 'diverted',
    patienceMs,
    async stop() {
      await gateway.stop();
      await legacy.close();
      await extracted?.close();
    },
  };
};
