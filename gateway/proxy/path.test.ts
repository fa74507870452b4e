import { describe, expect, it } from '@jest/globals';
import { normalisePath } from './path.ts';

describe('normalisePath', () => {
  it.each([
    ['/', '/'],
    ['/api/orders', '/api/orders'],
    ['/api/orders/', '/api/orders/'],
    ['//api///orders', '/api/orders'],
    ['/api/./orders/../x', '/api/x'],
    ['/a/..', '/'],
    ['/../../a', '/a'],
    ['/a/b/..', '/a/'],
    ['/a/.', '/a/'],
    ['/%61pi/%6frders', '/api/orders'],
    ['/%2e%2e/a', '/a'],
    ['/a/%2E%2e/b', '/b'],
    ['/a%2fb', '/a%2Fb'],
    ['/caf%c3%a9', '/caf%C3%A9'],
    ['/.hidden', '/.hidden'],
    ['/a;b=c', '/a;b=c'],
  ])('%s is matched as %s', (raw, normal) => {
    expect(normalisePath(raw)).toBe(normal);
  });

  it.each(['/%', '/%zz', '/%4', '/%ff', '/a%c3'])('%s cannot be decoded', (raw) => {
    expect(normalisePath(raw)).toBeNull();
  });

  it('is the same when done twice', () => {
    for (const raw of ['//a/%2e/b%2Fc', '/a/../..//b/', '/%7Euser/./x']) {
      const once = normalisePath(raw)!;
      expect(normalisePath(once)).toBe(once);
    }
  });
});
