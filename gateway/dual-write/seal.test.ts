import { describe, expect, it } from '@jest/globals';
import { createSeal } from './seal.ts';

const seal = createSeal('correct horse battery');
const id = '0190a000-0000-7000-8000-000000000001';

describe('the seal', () => {
  it('opens what it sealed, and shows nothing of it', () => {
    const sealed = seal.seal(id, 'request', Buffer.from('card 4111'));
    expect(sealed.toString('latin1')).not.toContain('4111');
    expect(seal.open(id, 'request', sealed).toString()).toBe('card 4111');
  });

  it('opens nothing for another row, another purpose, another key or a changed byte', () => {
    const sealed = seal.seal(id, 'request', Buffer.from('x'));
    const changed = Buffer.from(sealed);
    changed[changed.length - 1]! ^= 1;
    expect(() => seal.open(id.replace('1', '2'), 'request', sealed)).toThrow('does not open');
    expect(() => seal.open(id, 'response', sealed)).toThrow('does not open');
    expect(() => createSeal('another secret').open(id, 'request', sealed)).toThrow('seal.key');
    expect(() => seal.open(id, 'request', changed)).toThrow('does not open');
    expect(() => seal.open(id, 'request', Buffer.alloc(0))).toThrow('does not open');
  });

  it('tells clients apart without keeping what they said', () => {
    const scope = seal.scopeOf({ authorization: 'Bearer abc', stickyKey: 'u1' });
    expect(scope).not.toContain('abc');
    expect(scope).toBe(seal.scopeOf({ authorization: 'Bearer abc', stickyKey: 'u2' }));
    expect(seal.scopeOf({ stickyKey: 'u1' })).not.toBe(seal.scopeOf({ authorization: 'u1' }));
    expect(seal.scopeOf({})).toBe('');
  });
});
