import { z } from 'zod';
import type { Endpoint } from './endpoint.ts';

const schemaOf = (schema: z.ZodType, io: 'input' | 'output'): Record<string, unknown> => {
  const { $schema: _draft, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' }) as Record<string, unknown>;
  return rest;
};

const PROBLEM = {
  description: 'Refused, or failed (RFC 9457)',
  content: {
    'application/problem+json': {
      schema: {
        type: 'object',
        required: ['type', 'title', 'status', 'code'],
        properties: {
          type: { type: 'string' },
          title: { type: 'string' },
          status: { type: 'integer' },
          detail: { type: 'string' },
          code: { type: 'string' },
        },
      },
    },
  },
};

const parametersOf = (endpoint: Endpoint): unknown[] => {
  const inPath = [...endpoint.path.matchAll(/:([a-z]+)/gi)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
  const query = endpoint.query ? schemaOf(endpoint.query, 'input') : {};
  const required = new Set((query.required as string[] | undefined) ?? []);
  const inQuery = Object.entries((query.properties as Record<string, unknown> | undefined) ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: required.has(name),
    schema,
  }));
  return [...inPath, ...inQuery];
};

/** OpenAPI 3.1 of exactly the routes that are mounted. */
export const openapiOf = (endpoints: readonly Endpoint[], version: string): Readonly<Record<string, unknown>> => {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const endpoint of endpoints) {
    const path = `/api/v1${endpoint.path.replace(/:([a-z]+)/gi, '{$1}')}`;
    paths[path] ??= {};
    paths[path][endpoint.method] = {
      summary: endpoint.summary,
      description: `Role: ${endpoint.role}`,
      security: [{ bearer: [] }],
      parameters: parametersOf(endpoint),
      ...(endpoint.body
        ? { requestBody: { required: true, content: { 'application/json': { schema: schemaOf(endpoint.body, 'input') } } } }
        : {}),
      responses: {
        ...Object.fromEntries(
          Object.entries(endpoint.answers).map(([status, schema]) => [
            status,
            { description: 'Done', content: { 'application/json': { schema: schemaOf(schema, 'output') } } },
          ]),
        ),
        default: PROBLEM,
      },
    };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Banyan admin API', version },
    components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
    paths,
  };
};
