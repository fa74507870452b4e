const SOCKET = /^(ECONN|ETIMEDOUT|EPIPE|EHOST|ENET|ENOTFOUND|EAI_AGAIN)/;
/** SQLSTATE classes: connection exception, insufficient resources, operator intervention (PostgreSQL documentation, appendix A). */
const AWAY = /^(08|53|57)[0-9A-Z]{3}$/;
/** What pg, tarn and knex say without any code. */
const GAVE_UP = /timeout expired|timed out|timeout acquiring|connection terminated|read timeout|not queryable/i;

/** Does a failed query say that the store is not there, rather than that the query is wrong? */
export const isStoreTrouble = (error: unknown): boolean => {
  if (!(error instanceof Error)) return false;
  const { code } = error as { code?: unknown };
  return typeof code === 'string' ? SOCKET.test(code) || AWAY.test(code) : GAVE_UP.test(error.message);
};
