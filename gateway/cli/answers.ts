import type { z } from 'zod';
import type { AdminClient, AdminOptions } from './client.ts';
import { cannot } from './exit.ts';

/** Flags of every online command after commander has read them. */
export type OnlineFlags = AdminOptions & { readonly json?: boolean };

/** Reads an answer by its contract, so that another program on that port is told apart from a gateway. @throws Exit 2 */
export const readAnswer = <T extends z.ZodType>(client: AdminClient, schema: T, answer: unknown): z.output<T> => {
  const read = schema.safeParse(answer);
  if (read.success) return read.data;
  const where = read.error.issues[0]?.path.join('.') ?? '';
  throw cannot(`${client.url} answers, but not as this version of Banyan does${where === '' ? '' : ` (${where})`}`);
};

/** `?a=b&c=d` of the values that are set, or nothing. */
export const queryOf = (values: Readonly<Record<string, string | undefined>>): string => {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== undefined) query.set(name, value);
  const text = query.toString();
  return text === '' ? '' : `?${text}`;
};

/** A name in a path. */
export const part = (text: string): string => encodeURIComponent(text);

/** `2026-01-02 03:04:05`, UTC. */
export const moment = (iso: string): string => iso.slice(0, 19).replace('T', ' ');
