import { startGateway } from '../conformance/gateways.ts';
import type { RequestStand } from './request-fuzz.ts';
import { type ResponseStand, Script } from './response-fuzz.ts';
import { echo, openFuzzUpstream } from './upstream.ts';

export type Mode = 'plain' | 'diverted';

/** Short, for an upstream that falls silent is waited for. */
const TIMEOUTS = { response: '2s', idle: '2s' };

/** A gateway with upstreams that answer by script. */
export const openResponseStand = async (
  mode: Mode,
  patienceMs: number,
): Promise<ResponseStand & { readonly script: Script; stop(): Promise<void> }> => {
  let nonces = 0;
  const nonce = (): number => ++nonces;
  const script = new Script();
  const legacy = await openFuzzUpstream(script.react, nonce);
  const extracted = mode === 'plain' ? null : await openFuzzUpstream(script.react, nonce);
  const gateway = await startGateway(mode, { legacyPort: legacy.port, extractedPort: extracted?.port ?? 0, timeouts: TIMEOUTS });
  return {
    port: gateway.port,
    upstreams: extracted === null ? [legacy] : [legacy, extracted],
    patienceMs,
    script,
    async stop() {
      await gateway.stop();
      await legacy.close();
      await extracted?.close();
    },
  };
};

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
