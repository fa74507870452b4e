/**
 * Exact decimal comparison of JSON number tokens: 1.0 = 1 = 1e0, 9007199254740993 != 9007199254740992.
 * -0 = 0: they are the same decimal, and JSON gives the sign of zero no meaning.
 */
type Decimal = { readonly negative: boolean; readonly digits: string; readonly exponent: bigint };

const PARTS = /^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$/;

/** value = digits * 10^exponent, digits without leading or trailing zeros; zero is digits ''. */
const decimalOf = (token: string): Decimal => {
  const [, sign = '', whole = '', fraction = '', power = '0'] = PARTS.exec(token) ?? [];
  const all = (whole + fraction).replace(/^0+/, '');
  const digits = all.replace(/0+$/, '');
  if (digits === '') return { negative: false, digits: '', exponent: 0n };
  return { negative: sign === '-', digits, exponent: BigInt(power) - BigInt(fraction.length) + BigInt(all.length - digits.length) };
};

const PLAIN_INTEGER = /^-?[1-9][0-9]{0,14}$/;

/** One spelling per value, so that equal numbers have equal strings. */
export const canonicalNumber = (token: string): string => {
  // Plain integers are the common case and need no work, unless trailing zeros move into the exponent.
  if (PLAIN_INTEGER.test(token) && !token.endsWith('0')) return `${token}e0`;
  const { negative, digits, exponent } = decimalOf(token);
  return digits === '' ? '0' : `${negative ? '-' : ''}${digits}e${exponent}`;
};

export const sameNumber = (a: string, b: string): boolean => a === b || canonicalNumber(a) === canonicalNumber(b);

export type Tolerance = { readonly abs?: number | undefined; readonly rel?: number | undefined };

/** Exact arithmetic is bounded: wider spreads than this many decimal places are told apart with doubles. */
const MAX_PLACES = 2_000n;

const scaled = (value: Decimal, exponent: bigint): bigint => {
  const magnitude = value.digits === '' ? 0n : BigInt(value.digits) * 10n ** (value.exponent - exponent);
  return value.negative ? -magnitude : magnitude;
};
const abs = (value: bigint): bigint => (value < 0n ? -value : value);

/**
 * |a - b| <= abs, or |a - b| <= rel * max(|a|, |b|); both bounds inclusive and in exact decimals,
 * because 1.01 - 1.00 is more than 0.01 in doubles.
 */
export const withinTolerance = (a: string, b: string, tolerance: Tolerance): boolean => {
  const bounds = [tolerance.abs, tolerance.rel].map((bound) => decimalOf(bound === undefined ? '0' : String(bound)));
  const operands = [decimalOf(a), decimalOf(b), ...bounds];
  let low = 0n;
  let high = 0n;
  for (const { digits, exponent } of operands) {
    if (digits === '') continue;
    const top = exponent + BigInt(digits.length);
    if (exponent < low) low = exponent;
    if (top > high) high = top;
  }
  if (high - low > MAX_PLACES) {
    const [x, y] = [Number(a), Number(b)];
    const gap = Math.abs(x - y);
    return gap <= (tolerance.abs ?? 0) || gap <= (tolerance.rel ?? 0) * Math.max(Math.abs(x), Math.abs(y));
  }
  const [x, y, absolute, relative] = operands.map((operand) => scaled(operand, low)) as [bigint, bigint, bigint, bigint];
  const gap = abs(x - y);
  if (gap <= absolute) return true;
  // `relative` is scaled by 10^-low too, so the left side is scaled once more to match.
  const room = gap * 10n ** -low;
  return room <= relative * abs(x) || room <= relative * abs(y);
};
