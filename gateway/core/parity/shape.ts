const SHAPES: readonly (readonly [name: string, pattern: RegExp])[] = [
  ['uuid', /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i],
  ['ulid', /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/],
  ['time', /^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?$/],
  ['date', /^\d{4}-\d{2}-\d{2}$/],
];

/**
 * What kind of value a volatile field holds: `uuid`, `ulid`, `time`, `date`, `digits-N`, `hex-N`, `text`, `number`, `epoch-s`, `epoch-ms`, or the
 * JSON type. A field that changes with every call is noise only while its shape stays: `"undefined"` for a uuid, or seconds for
 * milliseconds, is not.
 */
export const shapeOf = (value: unknown): string => {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return numberShape(value);
  if (typeof value === 'object') return 'rawJSON' in value ? 'number' : 'object';
  if (typeof value !== 'string') return typeof value;
  const named = SHAPES.find(([, pattern]) => pattern.test(value));
  if (named) return named[0];
  if (/^\d+$/.test(value)) return `digits-${value.length}`;
  return /^[0-9a-f]{8,}$/i.test(value) ? `hex-${value.length}` : 'text';
};

/** Times since 1970 fall between 2001 and 2286 when they have 10 (seconds) or 13 (milliseconds) digits. */
const numberShape = (value: number): string => {
  if (!Number.isInteger(value)) return 'number';
  if (value >= 1e9 && value < 1e10) return 'epoch-s';
  return value >= 1e12 && value < 1e13 ? 'epoch-ms' : 'number';
};
