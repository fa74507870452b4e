import { describe, expect, it } from '@jest/globals';
import { decodeJwt } from 'jose';
import { identityKey } from './keys.ts';
import { createWhoami, type Whoami, type WhoamiOutcome } from './whoami.ts';

type Answer = { readonly status: number; readonly body: Buffer };

const rig = (answer: (credentials: readonly string[]) => Answer | Promise<Answer>) => {
  const outcomes: WhoamiOutcome[] = [];
  const troubles: unknown[] = [];
  const rigged = { time: 1_000_000_000_000, asked: 0 };
  const whoami = createWhoami({
    ask: async (credentials) => {
      rigged.asked++;
      return answer(credentials);
    },
    cacheMs: 30_000,
    key: identityKey(null, 'a seal key'),
    count: (outcome) => outcomes.push(outcome),
    onTrouble: (error) => troubles.push(error),
    now: () => rigged.time,
  });
  return { whoami, outcomes, troubles, rigged };
};
const ok = (value: unknown): Answer => ({ status: 200, body: Buffer.from(JSON.stringify(value)) });
const COOKIE = ['Host', 'shop', 'Cookie', 's=1'];
const subjectOf = async (whoami: Whoami, headers: readonly string[] = COOKIE): Promise<string | undefined> => {
  const token = await whoami.tokenFor('order', headers);
  return token === null ? undefined : decodeJwt(token).sub;
};

describe('createWhoami', () => {
  it('asks anew after 30 s, and signs anew after 30 s at the latest', async () => {
    let id = 1;
    const { whoami, rigged } = rig(() => ok({ id: id++ }));
    const first = await whoami.tokenFor('order', COOKIE);
    rigged.time += 29_000;
    expect(await whoami.tokenFor('order', COOKIE)).toBe(first);
    expect(await whoami.tokenFor('basket', COOKIE)).not.toBe(first);
    rigged.time += 1_000;
    expect(await subjectOf(whoami)).toBe('2');
    expect(rigged.asked).toBe(2);
  });

  it('asks only with Cookie and Authorization, repeats kept, and not at all without them', async () => {
    const seen: (readonly string[])[] = [];
    const { whoami, rigged } = rig((credentials) => {
      seen.push(credentials);
      return ok({ sub: 'x' });
    });
    expect(await whoami.tokenFor('order', ['Host', 'shop', 'X-User', '1'])).toBeNull();
    await whoami.tokenFor('order', ['cookie', 'a=1', 'X-User', '1', 'COOKIE', 'b=2', 'Authorization', 'Bearer t']);
    expect([rigged.asked, seen]).toEqual([1, [['cookie', 'a=1', 'cookie', 'b=2', 'authorization', 'Bearer t']]]);
  });

  it('leaves legacy alone for a second after a failure, and speaks of it once', async () => {
    let up = false;
    const { whoami, rigged, troubles, outcomes } = rig(() => {
      if (!up) throw new Error('no answer');
      return ok({ id: 'a' });
    });
    for (let n = 0; n < 5; n++) expect(await subjectOf(whoami)).toBeUndefined();
    expect(rigged.asked).toBe(1);
    rigged.time += 1_000;
    expect(await subjectOf(whoami)).toBeUndefined();
    up = true;
    rigged.time += 1_000;
    expect(await subjectOf(whoami)).toBe('a');
    expect([rigged.asked, troubles.length, outcomes.filter((one) => one === 'failed').length]).toEqual([3, 1, 2]);
  });

  it('takes what is no object of claims for what it is', async () => {
    const said = async (body: string, status = 200) => subjectOf(rig(() => ({ status, body: Buffer.from(body) })).whoami);
    expect(await said('{"id":12345678901234567890}')).toBe('12345678901234567890');
    expect(await said('{"sub":"a","id":7}')).toBe('a');
    expect(await said('{"name":"n"}')).toBeUndefined();
    for (const body of ['null', '[]', '"a"', '', '{']) expect(await said(body)).toBeUndefined();
    for (const status of [204, 302, 401, 404, 429, 500]) expect(await said('{"id":1}', status)).toBeUndefined();
    const claims = decodeJwt(
      (await rig(() => ok({ id: 1, aud: 'all', exp: 4e9, iss: 'me', sub: { a: 1 }, ['__proto__']: 1 })).whoami.tokenFor('order', COOKIE))!,
    );
    expect([claims.aud, claims.iss, claims.exp! - claims.iat!]).toEqual(['order', 'banyan', 60]);
  });

  it('gives up on claims that no header could carry', async () => {
    const { whoami, outcomes } = rig(() => ok({ id: 1, note: 'x'.repeat(8_000) }));
    expect(await whoami.tokenFor('order', COOKIE)).toBeNull();
    expect(outcomes).toContain('failed');
  });
});
