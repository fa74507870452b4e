import type { UpstreamView } from '@banyan/contracts/admin-api.ts';
import { describe, expect, it } from '@jest/globals';
import { loadConfig } from '../config.ts';
import { mergeUpstreams } from './merge.ts';
import { parseToPrimary, parseToWorker, sendable } from './protocol.ts';
import { shareOf } from './share.ts';

const configOf = async () => {
  const text = `
version: 1
client: { maxConnections: 100 }
legacy: { url: http://127.0.0.1:1, connections: 10 }
contexts:
  order:
    match: [ { path: /o, methods: [ GET ] } ]
    else: legacy
    extracted: { url: http://127.0.0.1:2, connections: 1 }
    breaker: { capacity: 7, volumeThreshold: 20 }
    shadow: { maxPerSecond: 50, concurrency: 2 }
  plain: { match: [ { path: /p, methods: [ GET ] } ] }
`;
  const loaded = await loadConfig({ text, env: {} });
  if (!loaded.ok) throw new Error(loaded.faults.map((fault) => fault.message).join('\n'));
  return loaded.config;
};

describe("one worker's share", () => {
  it('is the whole for one, and a part, never nothing, for several', async () => {
    const config = await configOf();
    expect(shareOf(config, 1)).toBe(config);
    const part = shareOf(config, 4);
    expect([part.client.maxConnections, part.legacy.connections]).toEqual([25, 3]);
    expect(part.contexts.order).toMatchObject({
      extracted: { connections: 1 },
      breaker: { capacity: 2, volumeThreshold: 20 },
      shadow: { maxPerSecond: 12.5, concurrency: 1 },
    });
    expect(part.contexts.plain?.extracted).toBeNull();
  });
});

describe('the protocol', () => {
  it('takes what it knows and nothing else', async () => {
    expect(parseToWorker({ type: 'stop', ms: 10 })).toEqual({ type: 'stop', ms: 10 });
    expect(parseToPrimary({ type: 'taken', seq: 3, error: null })).toEqual({ type: 'taken', seq: 3, error: null });
    const config = await configOf();
    expect(parseToWorker({ type: 'config', seq: 1, config })).toEqual({ type: 'config', seq: 1, config });
    for (const strange of [
      null,
      'stop',
      7,
      {},
      { type: 'stop' },
      { type: 'stop', ms: -1 },
      { type: 'config', seq: 1 },
      { type: 'left', cut: 0 },
    ]) {
      expect(parseToWorker(strange)).toBeUndefined();
      expect(parseToPrimary(strange)).toBeUndefined();
    }
  });

  it('sends a configuration, unless it holds functions', async () => {
    const config = await configOf();
    expect(sendable(config)).toEqual(config);
    expect(sendable({ ...config, contexts: { order: { ...config.contexts.order!, stickyKey: (() => []) as never } } })).toBeNull();
  });
});

describe('hosts as several workers see them', () => {
  const seen = (state: 'healthy' | 'unhealthy' | 'ejected', detail: string | null = null): UpstreamView[] => [
    { context: null, upstream: 'legacy', hosts: [{ url: 'http://a', state, detail }] },
  ];
  const hostOf = (views: UpstreamView[]) => views[0]!.hosts[0];

  it('show the worst state, and how many see it so when not all do', () => {
    expect(hostOf(mergeUpstreams(seen('unhealthy', 'old'), [seen('healthy'), seen('healthy')]))).toEqual({
      url: 'http://a',
      state: 'healthy',
      detail: null,
    });
    expect(hostOf(mergeUpstreams(seen('healthy'), [seen('healthy'), seen('ejected', 'for 5 s'), seen('healthy')]))).toEqual({
      url: 'http://a',
      state: 'ejected',
      detail: 'for 5 s (for 1 of 3 workers)',
    });
    expect(hostOf(mergeUpstreams(seen('healthy'), [seen('unhealthy', 'ECONNREFUSED'), seen('unhealthy', 'ECONNREFUSED')]))).toEqual({
      url: 'http://a',
      state: 'unhealthy',
      detail: 'ECONNREFUSED',
    });
    expect(mergeUpstreams(seen('healthy'), [])).toEqual(seen('healthy'));
  });
});
