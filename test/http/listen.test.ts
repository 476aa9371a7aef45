import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { openPinnedPool } from '../../src/database/pool.ts';
import { isPort, listen } from '../../src/http/listen.ts';

const pool = () => openPinnedPool('postgres://nobody@127.0.0.1:1/nowhere');

test('the pool of a server is ended with it, also where it cannot listen, and the reason is told in words', async () => {
  const first = pool();
  const { port, close } = await listen(createServer(), '127.0.0.1', 0, first);
  const second = pool();
  await assert.rejects(listen(createServer(), '127.0.0.1', port, second), {
    name: 'ExpectedError',
    message: `Port ${port} is in use: choose another.`,
  });
  assert.deepEqual([first.ended, second.ended], [false, true]);
  await close();
  assert.equal(first.ended, true);
});

test('a port is a whole number up to 65 535', () => {
  assert.deepEqual(['0', '65535'].map(isPort), [true, true]);
  assert.deepEqual(['', '-1', '1.5', '65536', '8080x', '000080'].map(isPort), Array(6).fill(false));
});
