// Which Pythons may be run at all, and which are good enough.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, before, test } from 'node:test';
import { load } from './load.mjs';

let python;
let root;
let workspace;

before(async () => {
  python = await load('python.ts');
  root = mkdtempSync(join(tmpdir(), 'slpy'));
  workspace = join(root, 'workspace');
  for (const folder of ['workspace/bin', 'workspace/.venv/bin', 'outside/bin', 'old/bin', 'bare/bin']) {
    mkdirSync(join(root, folder), { recursive: true });
  }
});

after(() => rmSync(root, { recursive: true }));

/** Write a program that answers the probe as a Python of some version would. */
function plant(folder, name, version, { venv = true, prefix = '/usr', mark } = {}) {
  const file = join(root, folder, name);
  const said = JSON.stringify({ executable: file, version, prefixes: [prefix, prefix], venv });
  writeFileSync(file, `#!/bin/sh\n${mark ? `touch ${mark}\n` : ''}echo '${said}'\n`);
  chmodSync(file, 0o755);
  return file;
}

function search(folders, more = {}) {
  const PATH = [
    ...folders.map((folder) =>
      folder.startsWith('/') || folder === '' || folder === '.' ? folder : join(root, folder),
    ),
    '/bin',
    '/usr/bin',
  ];
  return { configured: '', env: { PATH: PATH.join(delimiter) }, folders: [workspace], cwd: root, ...more };
}

test('a Python in the workspace is no candidate, whatever the PATH calls it', () => {
  plant('workspace/bin', 'python3', [3, 12, 0]);
  const outside = plant('outside/bin', 'python3', [3, 12, 0]);
  symlinkSync(join(workspace, 'bin'), join(root, 'link'));
  symlinkSync(join(workspace, 'bin', 'python3'), join(root, 'outside/bin/python3.13'));
  const path = [
    join(workspace, 'bin'),
    join(root, 'link'),
    `${root}/outside/../workspace/bin`,
    'bin',
    '',
    '.',
    join(root, 'outside/bin'),
  ];
  assert.deepEqual(python.candidates(path.join(delimiter), [workspace]), [outside]);
});

test('a Python in the workspace is not even started', async () => {
  const mark = join(root, 'ran');
  plant('workspace/bin', 'python3.13', [3, 13, 0], { mark });
  const good = plant('outside/bin', 'python3.11', [3, 11, 2]);
  assert.equal(await python.findPython(search(['workspace/bin', '', '.', 'outside/bin'])), good);
  assert.equal(python.isProgram(mark), false);
  await assert.rejects(
    python.findPython(search([], { configured: join(workspace, 'bin', 'python3.13') })),
    /lies in the workspace/,
  );
});

test('a Python whose library lies in the workspace is passed over', async () => {
  plant('old/bin', 'python3.12', [3, 12, 0], { prefix: join(workspace, '.venv') });
  const good = plant('outside/bin', 'python3.11', [3, 11, 2]);
  assert.equal(await python.findPython(search(['old/bin', 'outside/bin'])), good);
  const planted = join(root, 'old/bin/python3.12');
  await assert.rejects(python.findPython(search([], { configured: planted })), /takes its library from the workspace/);
});

test('what is too old, or cannot make environments, is named with what to do', async () => {
  const old = { ...search([]), env: { PATH: `${join(root, 'old9')}` } };
  mkdirSync(join(root, 'old9'));
  await assert.rejects(python.findPython(old), /No Python was found/);
  plant('old9', 'python3', [3, 9, 18]);
  await assert.rejects(
    python.findPython({ ...old, env: { PATH: `${join(root, 'old9')}${delimiter}` } }),
    /3\.9\.18.*3\.11 or newer/s,
  );
  plant('bare/bin', 'python3.11', [3, 11, 2], { venv: false });
  await assert.rejects(
    python.findPython({ ...old, env: { PATH: join(root, 'bare/bin') } }),
    (error) => error.trouble === 'venv' && /sudo apt install python3\.11-venv/.test(error.message),
  );
});

test('a program that hangs or is no Python is passed over', async () => {
  const good = plant('outside/bin', 'python3.11', [3, 11, 2]);
  mkdirSync(join(root, 'odd'));
  writeFileSync(
    join(root, 'odd', 'python3.13'),
    '#!/bin/sh\necho "pyenv: python3.13: command not found" >&2\nexit 127\n',
  );
  chmodSync(join(root, 'odd', 'python3.13'), 0o755);
  assert.equal(await python.findPython(search(['odd', 'outside/bin'])), good);
});

test('versions are compared by number', () => {
  assert.equal(python.isEnough([3, 9, 1]), false);
  assert.equal(python.isEnough([3, 11, 0]), true);
  assert.equal(python.isEnough([4, 0, 0]), true);
  assert.equal(python.isEnough([2, 12]), false);
  assert.equal(python.parseProbe('garbage'), undefined);
  assert.equal(python.parseProbe('{"executable": ""}'), undefined);
});

test('the environment has nothing that changes what Python loads, and no folder of the workspace on its PATH', () => {
  const given = {
    PATH: ['/usr/bin', join(workspace, 'bin'), '.'].join(delimiter),
    PYTHONPATH: 'x',
    PYTHONHOME: 'y',
    PIP_USER: '1',
    PIP_PROXY: 'p',
    HOME: '/h',
  };
  assert.deepEqual(python.cleanEnvironment(given, [workspace]), { PATH: '/usr/bin', PIP_PROXY: 'p', HOME: '/h' });
});

test('a path in a setting is absolute, or begins with the home folder', () => {
  assert.equal(python.absolute('bin/selfloop'), undefined);
  assert.equal(python.absolute('/opt/../bin/x'), '/bin/x');
  assert.ok(python.absolute('~/x').endsWith('/x'));
});
