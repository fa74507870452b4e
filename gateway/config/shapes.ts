import { z } from 'zod';

/** The building blocks of the configuration's schema. */

/** A mapping that knows all its keys; others are faults. */
export const object = <S extends z.core.$ZodLooseShape>(shape: S) =>
  z.strictObject(shape, { error: (issue) => (issue.code === 'unrecognized_keys' ? undefined : 'a mapping of keys to values') });

export const oneOf = <const V extends readonly [string, ...string[]]>(values: V) =>
  z.enum(values, { error: `one of ${values.join(', ')}` });

/** At most 1,000 entries. */
export const list = <T extends z.ZodType>(item: T, expected: string) =>
  z.array(item, { error: expected }).max(1_000, { error: 'at most 1000 entries' });
