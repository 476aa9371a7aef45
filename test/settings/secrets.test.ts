import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import { hideSecrets } from '../../src/settings/secrets.ts';
import { SETTINGS, secretSettings } from '../../src/settings/settings.ts';

const PASSWORD = 'p@ss/w"ö r\\d';
const env = {
  DATABASE_URL: `postgres://worker:${encodeURIComponent(PASSWORD)}@db.example:5432/tickets`,
  RUSTFS_SECRET_KEY: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCY=',
  GEOCODER_API_KEY: 'pk.0123456789abcdef',
};

describe('hiding secrets', () => {
  test('a setting whose name is that of a secret is marked as one, and what is marked is hidden', () => {
    const names = Object.values(SETTINGS).flatMap((group) => Object.keys(group.shape));
    const looks = names.filter((name) => /KEY|SECRET|TOKEN|PASSWORD|^ALERT_.*URL/.test(name));
    assert.deepEqual(
      secretSettings().sort(),
      looks.filter((name) => name !== 'RUSTFS_ACCESS_KEY').sort(), // the name of a user, as it were
    );
    for (const name of secretSettings())
      assert.equal(hideSecrets('at some-value', { [name]: 'some-value' }), 'at [hidden]');
  });

  test('whatever form they take', () => {
    const secrets = [PASSWORD, env.RUSTFS_SECRET_KEY, env.GEOCODER_API_KEY];
    const forms = secrets.flatMap((secret) => [
      secret,
      encodeURIComponent(secret),
      encodeURI(secret),
      JSON.stringify(secret),
      JSON.stringify(JSON.stringify(secret)),
      encodeURIComponent(secret).replace(/%../g, (code) => code.toLowerCase()),
      `${new URLSearchParams({ '': secret })}`.slice(1),
    ]);
    for (const form of forms) {
      const hidden = hideSecrets(`before ${form} after`, env);
      assert.match(hidden, /^before .*\[hidden\].* after$/);
      for (const secret of secrets) assert.ok(!hidden.includes(secret) && !hidden.includes(encodeURIComponent(secret)));
      assert.ok(!hidden.includes(form));
    }
  });

  test('also ones that no setting holds: passwords in URLs, keys in query strings', () => {
    assert.equal(hideSecrets('at postgres://u:other@h/db', env), 'at postgres://u:[hidden]@h/db');
    const example = 'it must look like postgres://user:password@host:5432/database, e.g. postgres://worker:…@db/x';
    assert.equal(hideSecrets(example, env), example);
    assert.equal(
      hideSecrets('GET https://x/y?q=Kilimani&key=abc123&format=json', env),
      'GET https://x/y?q=Kilimani&key=[hidden]&format=json',
    );
  });

  test('leaves other text alone, also where a setting is missing or short', () => {
    const text = 'Snapshot 5 is superseded by snapshot 6 (automations/inc/2026-06-15T07-00-00.csv)';
    assert.equal(hideSecrets(text, {}), text);
    assert.equal(hideSecrets(text, { RUSTFS_SECRET_KEY: 'is', DATABASE_URL: 'no url' }), text);
  });

  test('nothing that is logged shows one, and a last line before the end of the process is not lost', async () => {
    const program = `
      import { createLog } from ${JSON.stringify(new URL('../../src/settings/log.ts', import.meta.url).href)};
      const log = await createLog();
      const error = new Error('cannot connect to ' + process.env.DATABASE_URL);
      log.info({ settings: { ...process.env } }, 'starting');
      log.error({ err: error, nested: { password: ${JSON.stringify(PASSWORD)} } }, 'key ' + process.env.GEOCODER_API_KEY);
      log.fatal('the last line');
      process.exit(1);`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      env: { PATH: process.env.PATH, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [output] = await Promise.all([text(child.stdout), once(child, 'exit')]);
    const lines = output
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(
      lines.map(({ level }) => level),
      ['info', 'error', 'fatal'],
    );
    assert.equal(lines[2].msg, 'the last line');
    for (const secret of [
      PASSWORD,
      JSON.stringify(PASSWORD).slice(1, -1),
      encodeURIComponent(PASSWORD),
      env.RUSTFS_SECRET_KEY,
      env.GEOCODER_API_KEY,
    ]) {
      assert.ok(!output.includes(secret), output);
    }
  });
});
