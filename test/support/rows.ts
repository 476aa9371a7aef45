/** What tests ask of tables and do to them: how many rows there are, and time that passes without a wait. */
import type pg from 'pg';

type Db = { query(sql: string, values?: unknown[]): Promise<pg.QueryResult> };

/** Asks for the rows of a statement. @param db of the suite that runs: not there before it does */
export const asking =
  (db: () => Db) =>
  // biome-ignore lint/suspicious/noExplicitAny: rows are whatever the statement selects
  async (text: string, values: unknown[] = []): Promise<any[]> =>
    (await db().query(text, values)).rows;

/** @param from a table and what may follow it, e.g. `tickets.inc where is_actionable` */
export async function countRows(db: Db, from: string): Promise<number> {
  const { rows } = await db.query(`select count(*)::int as n from ${from}`);
  return rows[0].n;
}

/**
 * Time travel: a time of a table's rows is so long ago.
 * @param age an interval, e.g. `3 minutes`
 * @param where which rows; all of them by default
 */
export async function setBack(db: Db, table: string, column: string, age: string, where = 'true'): Promise<void> {
  await db.query(`update ${table} set ${column} = now() - $1::interval where ${where}`, [age]);
}
