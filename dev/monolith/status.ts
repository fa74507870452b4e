/** The HTTP status an error asks for (ours, express's and body-parser's carry `status`); 500 for any other. */
export const statusOf = (error: unknown): number =>
  error instanceof Error && 'status' in error && typeof error.status === 'number' ? error.status : 500;
