/** Status: health, the last files that were looked at, and the jobs that fail; what `fleettickets status` and the page show. */
import type { Db } from '../database/client.ts';
import { type DatasetHealth, type Health, readDatasets, readHealth } from './health.ts';

export interface Status {
  readonly health: Health;
  /** Those that are on: inc, and maybe crq. */
  readonly datasets: readonly DatasetHealth[];
  /** The last files that were looked at, newest first. */
  readonly snapshots: readonly {
    readonly snapshot_id: number;
    readonly dataset: string;
    readonly file: string;
    readonly status: string;
    readonly at: string;
    readonly read: number;
    readonly inserted: number;
    readonly updated: number;
    readonly rejected: number;
    readonly reason: string | null;
  }[];
  /** Jobs whose last attempt failed, the latest first. */
  readonly failing: readonly {
    readonly id: number;
    readonly task: string;
    readonly state: string;
    readonly attempts: string;
    readonly next_at: string | null;
    readonly error: string | null;
  }[];
}

const SNAPSHOTS_SHOWN = 10;
const JOBS_SHOWN = 20;

/** Everything that `fleettickets status` shows. */
export async function readStatus(db: Db): Promise<Status> {
  const { rows: snapshots } = await db.query<{ row: Status['snapshots'][number] }>(
    `select to_json(s) as row
     from (
       select snapshot_id, dataset, source_key as file, status, coalesce(loaded_at, progress_at) as at,
         rows_read as read, rows_inserted as inserted, rows_updated as updated, rows_rejected as rejected,
         coalesce(tickets_ops.reason(s), array_to_string(nullif(warnings, '{}'), ' ')) as reason
       from tickets_ops.snapshots s
       where dataset in (select tickets.datasets())
       order by snapshot_id desc limit ${SNAPSHOTS_SHOWN} -- primary key
     ) as s`,
  );
  const { rows: failing } = await db.query<{ row: Status['failing'][number] }>(
    `select to_json(j) as row
     from (
       select id, task, state, format('%s of %s', attempts, max_attempts) as attempts,
         case when state = 'retrying' then run_at end as next_at, last_error as error
       from tickets_ops.jobs where state = 'failed' or last_error is not null
       order by run_at desc limit ${JOBS_SHOWN}
     ) as j`,
  );
  return {
    health: await readHealth(db),
    datasets: await readDatasets(db),
    snapshots: snapshots.map(({ row }) => row),
    failing: failing.map(({ row }) => row),
  };
}
