/** The rights that the first migration of a Python version needs, as the doctor names them. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { withClient } from '../../src/database/client.ts';
import { migrate } from '../../src/database/schema.ts';
import { examine } from '../../src/operations/doctor/doctor.ts';
import { native } from '../support/environment.ts';
import {
  admin,
  dashboard,
  legacy,
  owner,
  pythonVersion,
  row,
  server,
  silent,
  url,
  worker,
} from '../support/python-version.ts';

describe('before a takeover', { skip: !native && 'needs a native Postgres' }, () => {
  pythonVersion();

  describe('the doctor, before the first migration, names what the worker’s role lacks; with exactly that it migrates', () => {
    const rights = async (database: string) => {
      const { DATABASE_URL } = process.env;
      process.env.DATABASE_URL = url(database, worker);
      try {
        for await (const finding of examine()) if (finding.check === 'rights') return finding;
      } finally {
        if (DATABASE_URL === undefined) delete process.env.DATABASE_URL;
        else process.env.DATABASE_URL = DATABASE_URL;
      }
      return assert.fail();
    };
    const cases: Record<string, [make: () => Promise<string>, lacks: RegExp]> = {
      'an empty database whose schema reporting is somebody else’s': [
        () => legacy('drop schema tickets, reporting, bi cascade; create schema reporting'),
        /^let the DBA run:\ngrant create on database \S+ to \S+;\ngrant usage, create on schema reporting to \S+;$/,
      ],
      'tables of a role that is no superuser': [
        () => legacy(),
        new RegExp(`\\ngrant ${owner} to ${worker}; -- after the migration: revoke ${owner} from ${worker};$`),
      ],
      'tables of a superuser': [
        async () => {
          const database = await legacy();
          const { rolname } = await row<{ rolname: string }>(
            database,
            'select current_user as rolname',
            new URL(server).username,
          );
          await admin(async (client) => {
            // As if a superuser had made them.
            await client.query(`reassign owned by ${owner} to ${rolname}`);
            await client.query(`alter database ${database} owner to ${rolname}`);
          }, database);
          return database;
        },
        /\nalter schema tickets owner to \S+;\n(.*\n)*alter table tickets\.inc owner to \S+;/,
      ],
    };
    for (const [name, [make, lacks]] of Object.entries(cases)) {
      test(name, async () => {
        const database = await make();
        const finding = await rights(database);
        assert.equal(finding.state, 'failed');
        assert.match(finding.remedy ?? '', lacks);
        await assert.rejects(
          migrate(url(database, worker), silent),
          /permission denied[\s\S]*\nBefore the next try:\n- This role may not create schemas in this database\. Let the DBA run:\n {2}grant create on/,
        );
        // With the first right alone it comes as far as the worker's own schema, and then the rest is still missing.
        await admin((client) => client.query(`grant create on database ${database} to ${worker}`), database);
        await assert.rejects(migrate(url(database, worker), silent), /permission denied|must be/);
        assert.equal((await rights(database)).state, 'failed');

        await admin((client) => client.query((finding.remedy ?? '').replace('let the DBA run:\n', '')), database);
        assert.deepEqual(await rights(database), { check: 'rights', state: 'ok', detail: `${worker} may migrate` });
        await migrate(url(database, worker), silent);

        await admin((client) => client.query(`revoke ${owner} from ${worker}`));
        assert.equal((await rights(database)).detail, `${worker} owns the tables`);
        await withClient(url(database, worker), (client) => client.query('select ok from tickets_ops.health'));
        // As its container does at every start, also where somebody has made something in our schema.
        await admin((client) => client.query('create view tickets.made_later as select 1 as one'), database);
        await migrate(url(database, worker), silent);
        if (name.startsWith('tables')) {
          const { seen } = await row<{ seen: number }>(
            database,
            'select sum(open_tickets)::int as seen from bi.open_by_cluster',
            dashboard,
          );
          assert.equal(seen, 240);
        }
      });
    }
  });
});
