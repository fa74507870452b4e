import { AppError } from '@banyan/contracts/errors.ts';
import type { LegacyRow } from '../ports.ts';

/** The text in a column. @throws AppError `unprocessable` naming table and column */
export const textOf = (table: string, row: LegacyRow, column: string): string => {
  const value = row[column];
  if (typeof value !== 'string')
    throw new AppError('unprocessable', `${table}.${column} must not be ${value === undefined ? 'missing' : JSON.stringify(value)}`);
  return value;
};

/** The same, where null is allowed. */
export const optionalTextOf = (table: string, row: LegacyRow, column: string): string | null =>
  row[column] === null ? null : textOf(table, row, column);

/** A whole number that JSON can carry. @throws AppError `unprocessable` naming table, column and value */
export const integerOf = (table: string, row: LegacyRow, column: string): number => {
  const text = textOf(table, row, column);
  const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value))
    throw new AppError('unprocessable', `${table}.${column} is "${text}", which is no whole number below 2^53`);
  return value;
};

/** Looks a code up. @throws AppError `unprocessable` naming table, column, code and the codes that exist */
export const wordOf = <T>(table: string, column: string, code: string, words: Readonly<Record<string, T>>): T => {
  if (!Object.hasOwn(words, code))
    throw new AppError('unprocessable', `${table}.${column} is "${code}", which is none of ${Object.keys(words).join(', ')}`);
  return words[code]!;
};
