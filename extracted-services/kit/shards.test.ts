import { describe, expect, it } from '@jest/globals';
import { readable } from './shards.ts';

const shard = (shardId: string, ...parents: string[]) => ({ shardId, parents });

describe('which shards may be read', () => {
  it('parents before children', () => {
    const split = [shard('a'), shard('b'), shard('a1', 'a'), shard('a2', 'a')];
    expect(readable(split, new Set())).toEqual(['a', 'b']);
    expect(readable(split, new Set(['a']))).toEqual(['b', 'a1', 'a2']);
  });
  it('both parents of a merge', () => {
    const merged = [shard('a'), shard('b'), shard('m', 'a', 'b')];
    expect(readable(merged, new Set(['a']))).toEqual(['b']);
    expect(readable(merged, new Set(['a', 'b']))).toEqual(['m']);
  });
  it('a child whose parent was trimmed away', () => expect(readable([shard('a1', 'a')], new Set())).toEqual(['a1']));
  it('grandchildren wait for their own parents only', () =>
    expect(readable([shard('a1', 'a'), shard('a11', 'a1')], new Set(['a']))).toEqual(['a1']));
});
