/** DATABASE_URL: what it may not hold is told precisely, and no message holds a part of the password. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { asLibpq, refusalOfUrl } from '../../src/settings/database-url.ts';
import { DatabaseSettings, readSettings } from '../../src/settings/settings.ts';

describe('DATABASE_URL', () => {
  const refused: [what: string, url: string, reason: RegExp][] = [
    ['several hosts', 'postgres://u:s3cret-w0rd@h1:5432,h2:5432/db', /names several hosts/],
    ['several hosts as a parameter', 'postgres://u:s3cret-w0rd@/db?host=h1,h2', /names several hosts/],
    ['a socket', 'postgres://u:s3cret-w0rd@%2Fvar%2Frun%2Fpostgresql/db', /names a Unix socket/],
    ['a socket as a parameter', 'postgres:///db?host=/var/run/postgresql', /names a Unix socket/],
    ['an unencoded @', 'postgres://u:s3cret@w0rd@/x@h/db', /percent-encoded/],
    ['an unencoded /', 'postgres://u:s3cret/w0rd@h/db', /percent-encoded/],
    ['an unencoded #', 'postgres://u:s3cret#w0rd@h/db', /percent-encoded/],
    ['an unencoded ?', 'postgres://u:s3cret?w0rd@h/db', /percent-encoded/],
    ['an unencoded %', 'postgres://u:s3cret%w0rd@h/db', /percent-encoded|encodes nothing/],
    ['another scheme', 'mysql://u:s3cret-w0rd@h/db', /is no address of Postgres/],
    ['the scheme of JDBC', 'jdbc:postgresql://u:s3cret-w0rd@h/db', /is no address of Postgres/],
    ['keywords', 'host=h user=u password=s3cret-w0rd dbname=db', /is no address of Postgres/],
    ['a port that is none', 'postgres://u:s3cret-w0rd@h:port/db', /is no URL/],
    ['no host', 'postgres:///db', /names no host/],
    ['an sslmode of its own', 'postgres://u:s3cret-w0rd@h/db?sslmode=maybe', /sslmode that is not supported/],
    ['verify-ca without a CA', 'postgres://u:s3cret-w0rd@h/db?sslmode=verify-ca', /needs sslrootcert/],
  ];
  for (const [what, url, reason] of refused) {
    test(`with ${what} is refused`, () => {
      assert.match(refusalOfUrl(url) ?? 'accepted', reason);
      assert.throws(
        () => readSettings(DatabaseSettings, { DATABASE_URL: url }),
        (error: Error) => !/s3cret|w0rd/.test(error.message),
      );
    });
  }

  test('with any character of the password encoded, an @ that the last one ends, or IPv6 is taken', () => {
    for (const url of [
      `postgres://u:${encodeURIComponent('s3@/?#%:&=+ word')}@h:5432/db`,
      'postgresql://u@localhost/db?application_name=x',
      'postgres://u:p@[::1]:5432/db',
    ])
      assert.equal(refusalOfUrl(url), undefined, url);
  });

  test('is taken without the blanks and line ends around it, which a copy brings', () => {
    const url = 'postgres://u:p@h:5432/db';
    assert.equal(readSettings(DatabaseSettings, { DATABASE_URL: ` ${url}\n` }).DATABASE_URL, url);
  });

  test('means by sslmode what libpq means', () => {
    const modeOf = (url: string) => new URL(asLibpq(url)).searchParams;
    for (const mode of ['disable', 'prefer', 'require', 'verify-full']) {
      const parameters = modeOf(`postgres://u@h/db?sslmode=${mode}`);
      assert.deepEqual([parameters.get('sslmode'), parameters.get('uselibpqcompat')], [mode, 'true']);
    }
    assert.equal(modeOf('postgres://u@h/db?sslmode=no-verify').get('sslmode'), 'require');
    assert.equal(asLibpq('postgres://u@h/db'), 'postgres://u@h/db');
  });
});
