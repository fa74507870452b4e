import { AppError } from '@banyan/contracts/errors.ts';
import type { Role } from '@banyan/contracts/vocabulary.ts';
import type { z } from 'zod';

/** One request to the API after its checks. */
export type Call<B, Q> = {
  readonly params: Readonly<Record<string, string>>;
  readonly body: B;
  readonly query: Q;
  /** Who asks: the token's name, or `local` where no tokens are configured. */
  readonly actor: string;
  /** As the client sent it, for what is passed on in its name. */
  readonly authorization: string | undefined;
  /** The request comes from another gateway, which asked its peers: the id of the kill, or what else stands there. */
  readonly fromPeer: string | null;
};
export type Reply = { readonly status: number; readonly body: unknown; readonly headers?: Readonly<Record<string, string>> };

/** One route of the API: the router and `/openapi.json` are made from the same list. */
export type Endpoint = {
  readonly method: 'get' | 'put' | 'post';
  /** Below `/api/v1`, in express' notation. */
  readonly path: string;
  readonly role: Role;
  readonly summary: string;
  readonly body: z.ZodType | null;
  readonly query: z.ZodType | null;
  readonly answers: Readonly<Record<number, z.ZodType>>;
  handle(call: Call<unknown, unknown>): Promise<Reply>;
};

type Shape<B extends z.ZodType | null, Q extends z.ZodType | null> = {
  readonly role: Role;
  readonly summary: string;
  readonly body?: B;
  readonly query?: Q;
  readonly answers: Readonly<Record<number, z.ZodType>>;
  readonly handle: (call: Call<B extends z.ZodType ? z.output<B> : null, Q extends z.ZodType ? z.output<Q> : null>) => Promise<Reply>;
};

/** Defines a route; what `handle` sees follows from the schemas. */
export const endpoint = <B extends z.ZodType | null = null, Q extends z.ZodType | null = null>(
  at: `${'GET' | 'PUT' | 'POST'} /${string}`,
  shape: Shape<B, Q>,
): Endpoint => {
  const [method, path] = at.split(' ') as [string, string];
  return {
    method: method.toLowerCase() as Endpoint['method'],
    path,
    role: shape.role,
    summary: shape.summary,
    body: shape.body ?? null,
    query: shape.query ?? null,
    answers: shape.answers,
    handle: shape.handle as Endpoint['handle'],
  };
};

export const ok = (body: unknown): Reply => ({ status: 200, body });

/** At most so many faults are listed. */
const MAX_FAULTS = 20;

/** Reads `value` by `schema`. @throws AppError `bad-request` that names each field and what was expected */
export const parse = (schema: z.ZodType, value: unknown, what: 'body' | 'query'): unknown => {
  const read = schema.safeParse(value);
  if (read.success) return read.data;
  const faults = read.error.issues.slice(0, MAX_FAULTS).flatMap((issue) => {
    const path = issue.path.join('.');
    if (issue.code === 'unrecognized_keys')
      return issue.keys
        .slice(0, MAX_FAULTS)
        .map((key) => ({ path: [...issue.path, key].join('.').slice(0, 100), expected: 'nothing: there is no such field' }));
    if (issue.path.length === 0) return [{ path: what, expected: 'a JSON object' }];
    return [{ path, expected: issue.message }];
  });
  throw new AppError('bad-request', faults.map((fault) => `${fault.path}: expected ${fault.expected}`).join('; '), { details: { faults } });
};
