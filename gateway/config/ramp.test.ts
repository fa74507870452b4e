import { describe, expect, it } from '@jest/globals';
import { formatFault, loadConfig, maskSecrets } from '../config.ts';

const TOKENS =
  '[ { name: ann, role: operator, token: ann-token }, { name: ben, role: admin, token: ben-token }, { name: vera, role: viewer, token: vera-token } ]';
const load = (ramp: string, more = '') =>
  loadConfig({
    env: {},
    text: `
version: 1
legacy: { url: http://127.0.0.1:3000 }
admin: { tokens: ${TOKENS} }
contexts:
  order:
    match: [ { path: /orders/:id, methods: [ GET, HEAD ] } ]
    else: legacy
    extracted: { url: http://127.0.0.1:4001 }
    ramp: ${ramp}
${more}`,
  });

const rampOf = async (text: string) => {
  const loaded = await load(text);
  if (!loaded.ok) throw new Error(loaded.faults.map(formatFault).join('\n'));
  return loaded.config.contexts.order!.ramp;
};

describe('a ramp block', () => {
  it('has a default for everything', async () => {
    expect(await rampOf('{}')).toEqual({
      steps: [100, 500, 2_500, 5_000, 10_000],
      hold: 600_000,
      interval: 10_000,
      minRequests: 500,
      gate: {
        parity: { good: 0.9995, bad: 0.998 },
        errors: { floor: 0.001 },
        latencyP95Ratio: 1.3,
        latencyP99Ratio: 1.5,
        latencySamples: 1_000,
        latencySlack: 5,
      },
      schedule: [],
      approvals: 0,
      webhooks: [],
      version: null,
    });
  });

  it.each([
    ['mon-fri', '"09:00-17:00"', [1, 2, 3, 4, 5], { from: 540, to: 1_020 }],
    ['fri-mon', '"22:00-06:00"', [0, 1, 5, 6], { from: 1_320, to: 360 }],
    ['"mon, Wed,mon"', '"0:00-24:00"', [1, 3], { from: 0, to: 1_440 }],
  ])('reads %s %s', async (days, hours, weekdays, minutes) => {
    const { schedule } = await rampOf(`{ schedule: [ { days: ${days}, hours: ${hours}, zone: europe/zurich } ] }`);
    expect(schedule).toEqual([{ days: weekdays, hours: minutes, zone: 'Europe/Zurich' }]);
  });

  it.each([
    ['schedule: [ { days: mon-noday } ]', 'days such as mon-fri'],
    ['schedule: [ { days: mon-tue-wed } ]', 'days such as mon-fri'],
    ['schedule: [ { hours: "9-17" } ]', 'hours such as 09:00-17:00'],
    ['schedule: [ { hours: "09:00-25:00" } ]', 'hours such as 09:00-17:00'],
    ['schedule: [ { hours: "09:00-09:00" } ]', 'hours such as 09:00-17:00'],
    ['schedule: [ { zone: Mars/Olympus } ]', 'a time zone such as Europe/Zurich'],
    ['webhooks: [ { url: "ftp://hooks/x", on: before, secret: long-enough } ]', 'an http or https address'],
    ['webhooks: [ { url: "http://user:pw@hooks/x", on: before, secret: long-enough } ]', 'without user and password'],
    ['webhooks: [ { url: "http://hooks/x", on: before, secret: short } ]', 'a secret of at least 8 characters'],
    ['webhooks: [ { url: "http://hooks/x", on: during, secret: long-enough } ]', 'one of before, after, rollback'],
    ['version: not-a-path', 'a path such as /version'],
    ['approvals: 2', '3 admin.tokens of role operator or admin'],
    ['steps: [ 5, 1 ]', 'rising percentages'],
  ])('refuses %s', async (text, expected) => {
    const loaded = await load(`{ ${text} }`);
    expect(loaded.ok ? [] : loaded.faults.map(formatFault)).toEqual([expect.stringContaining(expected)]);
  });

  it('takes approvals where there are people enough', async () => {
    expect((await rampOf('{ approvals: 1 }')).approvals).toBe(1);
  });

  it('is the same in all contexts of a group', async () => {
    const loaded = await load(
      '{ hold: 5m }',
      `    group: sales
  inventory:
    group: sales
    match: [ { path: /things/:id, methods: [ GET, HEAD ] } ]
    else: legacy
    extracted: { url: http://127.0.0.1:4002 }
`,
    );
    expect(loaded.ok ? [] : loaded.faults.map(formatFault)).toEqual([expect.stringContaining('contexts.inventory.ramp')]);
  });

  it('shows no secret of a webhook', async () => {
    const ramp = await rampOf('{ webhooks: [ { url: "http://hooks/x", on: after, secret: tell-nobody } ] }');
    expect(JSON.stringify(maskSecrets({ contexts: { order: { ramp } } }))).not.toContain('tell-nobody');
  });
});
