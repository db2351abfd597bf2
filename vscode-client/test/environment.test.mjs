// The private environment: what counts as finished, and that two windows never work on it at once. The Python here is
// a script, so that each step can be seen and made to fail; the real one is tried in the real editor.
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, before, beforeEach, test } from 'node:test';
import { load } from './load.mjs';

let made;
let root;
let wheel;
let log;

before(async () => {
  made = await load('environment.ts');
});

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'slenv'));
  wheel = join(root, 'selfloop-0.1.0-py3-none-any.whl');
  log = join(root, 'log');
  writeFileSync(wheel, 'one');
  writeFileSync(log, '');
  writePython('');
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

/** Write a Python that notes what it is asked for, makes an "environment" of itself, and then does `then`. */
function writePython(then) {
  const body = `#!/bin/sh
echo "$*" >> ${log}
for last; do :; done
if [ "$3" = venv ]; then mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; fi
${then}
exit 0
`;
  writeFileSync(join(root, 'python'), body);
  chmodSync(join(root, 'python'), 0o755);
}

function how(more = {}) {
  return { env: { PATH: '/usr/bin:/bin' }, signal: new AbortController().signal, onLine() {}, onStep() {}, ...more };
}

const find = async () => join(root, 'python');
const asked = () => readFileSync(log, 'utf8').trim().split('\n').filter(Boolean);

test('an environment is current when the stamp of its wheel was written, and outdated with another wheel', async () => {
  const environment = new made.Environment(join(root, 'store'));
  mkdirSync(join(root, 'store'));
  assert.equal(await environment.standing(wheel), 'absent');
  await environment.bring(wheel, find, how());
  assert.equal(await environment.standing(wheel), 'current');
  writeFileSync(wheel, 'two');
  assert.equal(await environment.standing(wheel), 'outdated');
  writeFileSync(log, '');
  await environment.bring(wheel, () => assert.fail('a Python was looked for'), how());
  assert.equal(await environment.standing(wheel), 'current');
  assert.equal(
    asked().some((line) => line.includes('venv')),
    false,
  );
  assert.equal(
    asked().some((line) => line.includes('--no-index --force-reinstall')),
    true,
  );
});

test('a step that fails leaves nothing that is used, and the next time it is made anew', async () => {
  const environment = new made.Environment(join(root, 'store'));
  mkdirSync(join(root, 'store'));
  writePython('case "$*" in *"pip install"*) echo "OSError: [Errno 28] No space left on device"; exit 1;; esac');
  await assert.rejects(environment.bring(wheel, find, how()), (error) => error.trouble === 'disk');
  assert.equal(await environment.standing(wheel), 'broken');
  writePython('');
  await environment.bring(wheel, find, how());
  assert.equal(await environment.standing(wheel), 'current');
});

test('an upgrade that fails takes the stamp away: half of an old and half of a new server is never started', async () => {
  const environment = new made.Environment(join(root, 'store'));
  mkdirSync(join(root, 'store'));
  await environment.bring(wheel, find, how());
  writeFileSync(wheel, 'two');
  writeFileSync(environment.python, '#!/bin/sh\nexit 1\n');
  await assert.rejects(environment.bring(wheel, find, how()), (error) => error.trouble === 'failed');
  assert.equal(await environment.standing(wheel), 'broken');
});

test('a stamp without its Python, or with half a text, is none', async () => {
  const environment = new made.Environment(join(root, 'store'));
  mkdirSync(join(root, 'store'));
  await environment.bring(wheel, find, how());
  rmSync(environment.python);
  assert.equal(await environment.standing(wheel), 'broken');
  await environment.bring(wheel, find, how());
  writeFileSync(join(environment.folder, 'stamp.json'), '{"wheel": "');
  assert.equal(await environment.standing(wheel), 'broken');
});

test('cancelling ends what runs, with all that it has started', async () => {
  const environment = new made.Environment(join(root, 'store'));
  mkdirSync(join(root, 'store'));
  const mark = join(root, 'survived');
  writePython(`case "$*" in *"pip install"*) (sleep 3; touch ${mark}) & echo waiting; wait;; esac`);
  const abort = new AbortController();
  const begun = Date.now();
  const onLine = (line) => line === 'waiting' && abort.abort();
  await assert.rejects(
    environment.bring(wheel, find, how({ signal: abort.signal, onLine })),
    (error) => error.trouble === 'cancelled',
  );
  assert.ok(Date.now() - begun < 2500);
  await environment.abandon();
  assert.equal(await environment.standing(wheel), 'absent');
  await new Promise((resolve) => setTimeout(resolve, 3200));
  assert.equal(existsSync(mark), false);
});

test('of two windows one works and the other waits, is told so, and then sees what was made', async () => {
  const store = join(root, 'store');
  const order = [];
  const signal = new AbortController().signal;
  const window = (name, milliseconds) =>
    new made.Environment(store).locked(
      async () => {
        order.push(`${name} begins`);
        await new Promise((resolve) => setTimeout(resolve, milliseconds));
        order.push(`${name} ends`);
      },
      signal,
      () => order.push(`${name} waits`),
    );
  await Promise.all([window('a', 500), window('b', 1)]);
  const first = order.find((line) => line.endsWith('begins'))[0];
  const second = first === 'a' ? 'b' : 'a';
  assert.deepEqual(
    order.filter((line) => !line.endsWith('waits')),
    [`${first} begins`, `${first} ends`, `${second} begins`, `${second} ends`],
  );
  assert.deepEqual(
    order.filter((line) => line.endsWith('waits')),
    [`${second} waits`],
  );
  assert.equal(existsSync(join(store, 'server.lock')), false);
});

test('the lock of a window that died is taken over, by one of several', async () => {
  const store = join(root, 'store');
  mkdirSync(store);
  writeFileSync(join(store, 'server.lock'), '999999999 dead');
  const signal = new AbortController().signal;
  let inside = 0;
  let most = 0;
  const window = () =>
    new made.Environment(store).locked(
      async () => {
        most = Math.max(most, ++inside);
        await new Promise((resolve) => setTimeout(resolve, 50));
        inside -= 1;
      },
      signal,
      () => undefined,
    );
  await Promise.all([window(), window(), window()]);
  assert.equal(most, 1);
});

test('a lock that has not moved for long is nobody’s, even if its number is that of some process', async () => {
  const store = join(root, 'store');
  mkdirSync(store);
  const lock = join(store, 'server.lock');
  writeFileSync(lock, `${process.pid} other`);
  const environment = new made.Environment(store);
  assert.equal(await environment.isLocked(), true);
  const old = new Date(Date.now() - 60_000);
  utimesSync(lock, old, old);
  assert.equal(await environment.isLocked(), false);
});

test('versions are compared by number, and what is none is not older', () => {
  assert.equal(made.isOlder('0.9.10', '0.10.0'), true);
  assert.equal(made.isOlder('0.10.0', '0.9.10'), false);
  assert.equal(made.isOlder('1.0.0', '1.0.0'), false);
  assert.equal(made.isOlder('1.0.0.dev1', '1.0.1'), true);
  assert.equal(made.isOlder('', '1.0.1'), false);
});

test('the wheel of the package is found, and its absence too', async () => {
  assert.equal(await made.findWheel(root), wheel);
  assert.equal(await made.findWheel(join(root, 'nothing')), undefined);
});
