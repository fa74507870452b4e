import { AppError } from '@banyan/contracts/errors.ts';
import type { PairQuery } from './evidence.ts';

const ID = /^[1-9][0-9]{0,17}$/;

/** Is this text an id that a store may have given? (bigint, positive) */
export const isPairId = (text: string): boolean => ID.test(text);

/** Checks limit and cursor of a query for pairs. @throws AppError `bad-request` */
export const pageOf = ({ limit = 50, cursor }: PairQuery): { readonly limit: number; readonly before: bigint | undefined } => {
  if (!Number.isInteger(limit) || limit < 1 || limit > 200)
    throw new AppError('bad-request', 'limit: expected a whole number from 1 to 200');
  if (cursor !== undefined && !isPairId(cursor)) throw new AppError('bad-request', 'cursor: expected the next of an earlier answer');
  return { limit, before: cursor === undefined ? undefined : BigInt(cursor) };
};
