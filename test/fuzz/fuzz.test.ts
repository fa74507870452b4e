import { describe, expect, it } from '@jest/globals';
import { type Failure, fuzzRequests } from './request-fuzz.ts';
import { fuzzResponses } from './response-fuzz.ts';
import { type Mode, openRequestStand, openResponseStand } from './stands.ts';
import { readConnection } from './strict-request.ts';

/** The same cases each time, and some that nobody has seen: a failure names the seed. */
const SEEDS = [1, Math.floor(Math.random() * 2 ** 32)];
const PATIENCE_MS = 10_000;

const told = (seed: number, failures: readonly Failure[]): string[] =>
  failures.map(({ case: index, faults }) => `npm run fuzz -- --seed ${seed} --first ${index}: ${faults.join('; ')}`);

describe.each<[Mode, number]>([
  ['plain', 700],
  ['diverted', 300],
])('requests to a %s gateway', (mode, requests) => {
  it.each(SEEDS)('reach an upstream as a strict reader has them, or not at all (seed %i)', async (seed) => {
    const stand = await openRequestStand(mode, PATIENCE_MS);
    try {
      const tally = await fuzzRequests(stand, { seed, requests });
      expect(told(seed, tally.failures)).toEqual([]);
      // most of both kinds, else this shows nothing
      expect(tally.answered).toBeGreaterThan(requests / 3);
      expect(tally.refused).toBeGreaterThan(requests / 10);
    } finally {
      await stand.stop();
    }
  });
});

describe.each<[Mode, number]>([
  ['plain', 700],
  ['diverted', 300],
])('answers through a %s gateway', (mode, exchanges) => {
  it.each(SEEDS)('reach the client as a strict reader has them, or visibly not (seed %i)', async (seed) => {
    const stand = await openResponseStand(mode, PATIENCE_MS);
    try {
      const tally = await fuzzResponses(stand, { seed, exchanges });
      expect(tally.failures).toEqual([]);
      expect(tally.outcomes.delivered).toBeGreaterThan(exchanges / 3);
      expect(tally.outcomes.refused).toBeGreaterThan(exchanges / 10);
    } finally {
      await stand.stop();
    }
  });
});

describe('the strict reader', () => {
  const HOST = 'Host: a\r\n';
  const GET = `GET / HTTP/1.1\r\n${HOST}\r\n`;
  const ends = (text: string): string => readConnection(text).end;

  it('knows where requests end', () => {
    const body = `POST /b HTTP/1.1\r\n${HOST}Content-Length: 3\r\n\r\nabc`;
    const chunked = `POST /c HTTP/1.1\r\n${HOST}Transfer-Encoding: Chunked\r\n\r\n02;x="\\""\r\nab\r\n1\r\nc\r\n0\r\nT: 1\r\n\r\n`;
    const { requests, end } = readConnection(GET + body + chunked + GET);
    expect(requests.map(({ path, body, framing }) => [path, body, framing])).toEqual([
      ['/', '', 'none'],
      ['/b', 'abc', 'length'],
      ['/c', 'abc', 'chunked'],
      ['/', '', 'none'],
    ]);
    expect(requests[2]!.trailers).toEqual([['T', '1']]);
    expect(end).toBe('clean');
  });

  it.each([
    ['bare-lf', `GET / HTTP/1.1\n${HOST}\r\n`],
    ['bare-cr', `GET / HTTP/1.1\r\nX: a\rb\r\n${HOST}\r\n`],
    ['obs-fold', `GET / HTTP/1.1\r\n${HOST} x\r\n\r\n`],
    ['field-name', `GET / HTTP/1.1\r\n${HOST}X : 1\r\n\r\n`],
    ['field-value', `GET / HTTP/1.1\r\n${HOST}X: \0\r\n\r\n`],
    ['host-missing', 'GET / HTTP/1.1\r\n\r\n'],
    ['host-repeated', `GET / HTTP/1.1\r\n${HOST}${HOST}\r\n`],
    ['coding-and-length', `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    ['coding', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked, identity\r\n\r\n`],
    ['length', `POST / HTTP/1.1\r\n${HOST}Content-Length: +5\r\n\r\nabcde`],
    ['length-repeated', `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde`],
    ['chunk-size', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n`],
    ['chunk-end', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n`],
    ['version', `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`],
    ['closed', `GET / HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n${GET}`],
    ['incomplete', GET.slice(0, -1)],
  ])('stops at %s', (end, text) => {
    expect(ends(GET + text)).toBe(end);
  });
});
