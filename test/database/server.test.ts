import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { newerServer, serverObstacle } from '../../src/database/server.ts';

describe('the server', () => {
  const server = (major: number, encoding = 'UTF8') => ({
    version: `${major}.4 (Debian ${major}.4-1)`,
    major,
    encoding,
  });

  test('of Postgres 15 to 18 is taken without a word', () => {
    for (const major of [15, 16, 17, 18]) {
      assert.equal(serverObstacle(server(major)), undefined);
      assert.equal(newerServer(server(major)), undefined);
    }
  });

  test('that is older is refused, with the versions that are not', () => {
    assert.deepEqual(serverObstacle(server(14)), {
      what: 'This server is Postgres 14.4 (Debian 14.4-1), which is too old',
      remedy: 'Use Postgres 15 to 18.',
    });
  });

  test('that is newer than what was tested is taken, and said to be', () => {
    assert.equal(serverObstacle(server(19)), undefined);
    assert.match(newerServer(server(19))?.what ?? '', /Postgres 19\.4 .* is newer than this release/);
  });

  test('is refused with another encoding than UTF8', () => {
    assert.match(serverObstacle(server(17, 'SQL_ASCII'))?.what ?? '', /encoding of this database is SQL_ASCII/);
  });
});
