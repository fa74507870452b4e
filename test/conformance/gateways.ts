import pino from 'pino';
import { createGateway } from '../../gateway/compose.ts';
import { formatFault, loadConfig } from '../../gateway/config.ts';
import type { Case, Mode } from './case.ts';
import type { Stand } from './play.ts';
import { openScriptedUpstream } from './scripted-upstream.ts';

export type GatewayStand = Stand & { stop(): Promise<void> };

/** Every path belongs to one context, as far along as the mode says; nothing but the answers of a case decides who is asked. */
const contextsOf = (mode: Mode, extractedPort: number): Record<string, unknown> =>
  mode === 'plain'
    ? {}
    : {
        everything: {
          match: [{ path: '/**' }],
          else: 'legacy',
          extracted: { url: `http://127.0.0.1:${extractedPort}` },
          // present in every request, so that no cookie is issued
          stickyKey: ['header:x-forwarded-for'],
          stage: mode === 'diverted' ? 'canary' : 'shadow',
          // cases break the upstream on purpose, and each must find the breaker closed
          breaker: { errorThresholdPercentage: 100, volumeThreshold: 1_000_000 },
          shadow: { maxPerSecond: 10_000 },
          parity: { sample: mode === 'shadowed' ? '100%' : '0%', probe: '0%' },
          ramp: { steps: [100] },
        },
      };

const setupOf = (setup: NonNullable<Case['setup']>): { client: object; timeouts: object; trustedProxies: string[] } => ({
  client: setup === 'impatient' ? { headerTimeout: '500ms', idleTimeout: '500ms' } : {},
  timeouts: setup === 'impatient' ? { response: '500ms', idle: '500ms' } : {},
  trustedProxies: setup === 'trusting' ? ['127.0.0.1/32'] : [],
});

type GatewaySetup = {
  readonly legacyPort: number;
  /** Not asked in `plain` mode. */
  readonly extractedPort: number;
  readonly client?: object;
  readonly timeouts?: object;
  readonly trustedProxies?: readonly string[];
};

/** A whole gateway in this process, in front of upstreams of somebody else's. */
export const startGateway = async (mode: Mode, setup: GatewaySetup): Promise<{ port: number; stop(): Promise<void> }> => {
  const { client = {}, timeouts = {}, trustedProxies = [] } = setup;
  const contexts = contextsOf(mode, setup.extractedPort);
  for (const context of Object.values(contexts) as { extracted: { timeouts?: object } }[]) context.extracted.timeouts = timeouts;
  const loaded = await loadConfig({
    file: 'conformance.yaml',
    text: JSON.stringify({
      version: 1,
      listen: { address: '127.0.0.1:0', http2: true },
      admin: { listen: '127.0.0.1:0' },
      drain: '1s',
      client,
      trustedProxies,
      legacy: { url: `http://127.0.0.1:${setup.legacyPort}`, timeouts },
      contexts,
    }),
    env: {},
  });
  if (!loaded.ok) throw new Error(loaded.faults.map(formatFault).join('\n'));
  const gateway = await createGateway({ config: loaded.config, version: 'conformance', log: pino({ level: 'silent' }) });
  const urls = await gateway.start();
  return { port: Number(new URL(urls.gateway).port), stop: async () => void (await gateway.stop()) };
};

/** A whole gateway with scripted upstreams on both sides. In `plain` mode there is but one. */
export const openGateway = async (mode: Mode, setup: NonNullable<Case['setup']>): Promise<GatewayStand> => {
  const legacy = await openScriptedUpstream();
  const extracted = mode === 'plain' ? null : await openScriptedUpstream();
  const gateway = await startGateway(mode, { legacyPort: legacy.port, extractedPort: extracted?.port ?? 0, ...setupOf(setup) });
  return {
    port: gateway.port,
    // a shadow is no answerer: what it is sent must be well-formed, but is not part of the case
    upstreams: extracted !== null && mode === 'diverted' ? [legacy, extracted] : [legacy],
    // only a failing case takes so long: a busy machine needs seconds for 5 MB both ways
    patienceMs: 60_000,
    strict: true,
    async stop() {
      await gateway.stop();
      await legacy.close();
      await extracted?.close();
    },
  };
};
