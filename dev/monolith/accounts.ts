import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { Knex } from 'knex';
import { hashPassword } from './schema.ts';

/** Somebody who is logged in. */
export type User = { id: string; name: string };

const SESSION_DAYS = 7;

/** Makes a session when the password is right and gives its id, else null. Also clears out what has expired. */
export const logIn = async (db: Knex, id: string, password: string): Promise<string | null> => {
  const [row] = await db('shop.t_user').where('usr_id', id).select<{ pw_hash: string }[]>('pw_hash');
  // An unknown user costs the same hash as a known one, so the time tells nobody who exists.
  const stored = row?.pw_hash ?? hashPassword('', 'nobody');
  const given = hashPassword(password, stored.split('$')[1] ?? '');
  if (!row || given.length !== stored.length || !timingSafeEqual(Buffer.from(given), Buffer.from(stored))) return null;
  const session = randomBytes(24).toString('base64url');
  await db.raw(`delete from shop.t_session where exp_ts < clock_timestamp() at time zone 'Europe/Berlin'`);
  await db.raw(
    `insert into shop.t_session (sess_id, usr_id, exp_ts)
     values (?, ?, (clock_timestamp() + make_interval(days => ?)) at time zone 'Europe/Berlin')`,
    [session, id, SESSION_DAYS],
  );
  return session;
};

/** Who owns the session, or null when it is unknown or has expired. */
export const userOf = async (db: Knex, session: string): Promise<User | null> => {
  const { rows } = await db.raw<{ rows: { usr_id: string; usr_nm: string }[] }>(
    `select u.usr_id, u.usr_nm from shop.t_session s join shop.t_user u using (usr_id)
     where s.sess_id = ? and s.exp_ts > clock_timestamp() at time zone 'Europe/Berlin'`,
    [session],
  );
  const row = rows[0];
  return row ? { id: row.usr_id, name: row.usr_nm } : null;
};

/** Ends a session; an unknown one is no error. */
export const logOut = async (db: Knex, session: string): Promise<void> => {
  await db('shop.t_session').where('sess_id', session).delete();
};
