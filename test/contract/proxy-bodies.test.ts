import { afterEach, describe, expect, it } from '@jest/globals';
import { type RawMessage, statusOf } from '../harness/raw-http.ts';
import { answering, OK, openRig, type Rig } from './proxy-rig.ts';

let rig: Rig | undefined;
const seen: RawMessage[] = [];
const open = async (): Promise<Rig> => {
  seen.length = 0;
  rig = await openRig(
    answering((request) => {
      seen.push(request);
      return OK;
    }),
  );
  return rig;
};
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
});

// what `npm run fuzz` has found
describe('a request whose body breaks the rules', () => {
  it.each(['OPTIONS', 'TRACE'])('is not answered by the gateway itself either (%s)', async (method) => {
    const { ask } = await open();
    const answer = await ask(`${method} / HTTP/1.1\r\nHost: shop\r\nMax-Forwards: 0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX`);
    expect(statusOf(answer)).toBe(400);
    expect(seen).toEqual([]);
  });

  it('is answered by the gateway itself when the body is sound, wherever it is cut', async () => {
    const { client } = await open();
    const connection = await client();
    connection.write('OPTIONS / HTTP/1.1\r\nHost: shop\r\nMax-Forwards: 0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel');
    connection.write('lo\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: shop\r\n\r\n');
    expect(statusOf(await connection.message())).toBe(204);
    expect(statusOf(await connection.message())).toBe(200);
  });

  it('is refused when Node would lose it behind an upgrade that is not taken', async () => {
    const { ask } = await open();
    const head = (coding: string): string =>
      `POST / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: wet\r\nTransfer-Encoding: ${coding}\r\n\r\n`;
    expect(statusOf(await ask(`${head('chunked\t')}5\r\nhello\r\n0\r\n\r\n`))).toBe(400);
    expect(seen).toEqual([]);
    expect(statusOf(await ask(`${head('chunked')}5\r\nhello\r\n0\r\n\r\n`))).toBe(200);
    expect(seen.map(({ body }) => String(body))).toEqual(['hello']);
  });
});

it('closes behind a trailer that says so, without a word to what follows', async () => {
  const { client } = await open();
  const connection = await client();
  connection.write(
    'POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: shop\r\n\r\n',
  );
  expect(statusOf(await connection.message())).toBe(200);
  expect(await connection.rest()).toBe('');
  expect(seen).toHaveLength(1);
});
