import { describe, expect, it } from '@jest/globals';
import { wholeAnswer } from './buffered.ts';

const BODY = Buffer.from('{"id":1}');

describe('a stored answer', () => {
  it('has the usual phrase and a length, which are not stored', () => {
    const answer = wholeAnswer(201, '', ['Content-Type', 'application/json'], BODY);
    expect(answer.reason).toBe('Created');
    expect(answer.rawHeaders).toEqual(['Content-Type', 'application/json', 'content-length', '8']);
  });

  it('says that it is empty, so that a client does not wait for chunks', () => {
    expect(wholeAnswer(400, '', [], Buffer.alloc(0)).rawHeaders).toEqual(['content-length', '0']);
  });

  it.each([204, 205, 304])('gets no length where %i can have no body', (status) => {
    expect(wholeAnswer(status, '', [], Buffer.alloc(0)).rawHeaders).toEqual([]);
  });

  it('keeps a length and a phrase of its own, and chunks where trailers follow', () => {
    const own = wholeAnswer(200, 'Fine', ['Content-Length', '8'], BODY);
    expect([own.reason, own.rawHeaders]).toEqual(['Fine', ['Content-Length', '8']]);
    expect(wholeAnswer(200, '', [], BODY, ['x-sum', '1']).rawHeaders).toEqual([]);
  });
});
