import { parseArgs } from 'node:util';
import { withCurrentDatabase } from '../database/current.ts';
import { countVehicles, findTracker, listTrackers, pointVehiclesAt, type Tracker } from '../dispatch/trackers.ts';
import { APPLY, print, printJson } from '../terminal/output.ts';
import { table } from '../terminal/table.ts';
import { UsageError } from '../terminal/usage.ts';
import { printableLine } from '../text/printable.ts';

export const summary = "point dispatch at the tracker's table of vehicle positions";
export const usage = `Usage: fleettickets vehicles [--json]
       fleettickets vehicles --use SCHEMA.TABLE [--apply] [--json]

Lists the tables of this database that look like positions of vehicles, each with the view
tickets.vehicles over it and the grants that this needs, and says what tickets.vehicles
shows now. Nothing is changed without --apply.

  --use SCHEMA.TABLE   this table only
  --apply              grant and make the view
  --json               print one JSON object

Settings: DATABASE_URL.
`;

type Counts = Awaited<ReturnType<typeof countVehicles>>;

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      use: { type: 'string' },
      apply: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const { use, apply, json } = values;
  if (apply && use === undefined) throw new UsageError('--apply goes with --use SCHEMA.TABLE.');
  return withCurrentDatabase(async (client) => {
    const trackers = use === undefined ? await listTrackers(client) : [await findTracker(client, use)];
    if (apply && trackers[0]) await pointVehiclesAt(client, trackers[0]);
    // A view that cannot be read is the doctor's matter: this command is its remedy.
    const vehicles = await countVehicles(client).catch((error: Error) => error.message);
    if (json) {
      printJson({ trackers, applied: apply, vehicles });
      return 0;
    }
    print(apply ? `tickets.vehicles reads ${trackers[0]?.table} now.\n` : listed(trackers));
    print(seen(vehicles));
    if (use !== undefined && !apply) print(`${APPLY}\n`);
    return 0;
  });
}

function listed(trackers: readonly Tracker[]): string {
  if (trackers.length === 0) return 'No table of this database looks like positions of vehicles.\n\n';
  const rows = trackers.map(({ table: name, rows: count, newest }) => ({
    table: name,
    rows: count ?? '?',
    'newest position': newest ?? '?',
  }));
  return `${table(rows)}\n${trackers.map(({ table: name, grants, statement }) => `-- ${printableLine(name)}\n${[...grants, statement].join('\n')}\n\n`).join('')}`;
}

function seen(vehicles: Counts | string): string {
  if (typeof vehicles === 'string') return `tickets.vehicles cannot be read: ${vehicles}\n`;
  if (vehicles.length === 0) return 'tickets.vehicles lists no vehicle.\n';
  const total = vehicles.reduce((sum, { vehicles: count }) => sum + count, 0);
  return `tickets.vehicles lists ${total}: ${vehicles.map(({ freshness, vehicles: count }) => `${count} ${freshness}`).join(', ')}.\n`;
}
