/**
 * Does an error of `pg` speak of the connection, the server's state or a collision rather than of the statement? Such a statement may simply be
 * repeated. Classes of SQLSTATE: 08 connection, 40 serialization and deadlock, 53 resources, 57 operator (shutdown, time-out), 58 and XX the server's own.
 */
export const isPassing = (error: unknown): boolean => {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code !== 'string' || !/^[0-9A-Z]{5}$/.test(code) || /^(08|40|53|57|58|XX)/.test(code);
};
