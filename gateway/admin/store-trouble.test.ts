import { describe, expect, it } from '@jest/globals';
import { isStoreTrouble } from './store-trouble.ts';

const failed = (message: string, code?: string): Error => Object.assign(new Error(message), code === undefined ? {} : { code });

describe('trouble with the store', () => {
  it.each([
    ['a refused connection', failed('connect ECONNREFUSED 127.0.0.1:5432', 'ECONNREFUSED')],
    ['a server that shuts down', failed('terminating connection due to administrator command', '57P01')],
    ['too many connections', failed('sorry, too many clients already', '53300')],
    ['a driver that gave up', failed('timeout expired')],
    ['a pool that gave up', failed('Knex: Timeout acquiring a connection. The pool is probably full.')],
    ['a connection that ended', failed('Connection terminated unexpectedly')],
  ])('is %s', (_what, error) => expect(isStoreTrouble(error)).toBe(true));

  it.each([
    ['a query that is wrong', failed('column "x" does not exist', '42703')],
    ['a file that is missing', failed('no such file', 'ENOENT')],
    ['a mistake of ours', new TypeError('x is not a function')],
    ['what is no error', 'timeout expired'],
  ])('is not %s', (_what, error) => expect(isStoreTrouble(error)).toBe(false));
});
