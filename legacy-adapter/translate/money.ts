import { AppError } from '@banyan/contracts/errors.ts';

/**
 * Whole cents, as the digits of the column, to a decimal number of major units. Exact up to 2^53 cents: IEEE 754 division rounds correctly, so
 * 799 gives the very number that the text `7.99` stands for.
 * @throws AppError `unprocessable` for anything but whole, safe cents
 */
export const toDecimal = (cents: string): number => {
  const whole = /^-?\d{1,16}$/.test(cents) ? Number(cents) : Number.NaN;
  if (!Number.isSafeInteger(whole)) throw new AppError('unprocessable', `"${cents}" is no whole number of cents`);
  return whole / 100;
};

/**
 * A decimal number of major units to whole cents. Reads the digits instead of multiplying, because 1.15 * 100 is 114.99999999999999.
 * @throws AppError `unprocessable` when it has more than two decimals or is too large to be exact
 */
export const toCents = (amount: number): string => {
  const match = /^(-?)(\d{1,14})(?:\.(\d{1,2}))?$/.exec(String(amount));
  if (!match) throw new AppError('unprocessable', `${amount} is no amount in whole cents`);
  const digits = `${match[2]}${(match[3] ?? '').padEnd(2, '0')}`.replace(/^0+(?=\d)/, '');
  return digits === '0' ? digits : `${match[1]}${digits}`;
};
