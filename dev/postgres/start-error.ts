/** Why the embedded PostgreSQL could not be started; `message` is one line that a person can act on. */
export class PostgresStartError extends Error {
  override readonly name = 'PostgresStartError';
}
