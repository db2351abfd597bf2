// What pip says, in one sentence for the user.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { load } from './load.mjs';

let explain;
before(async () => {
  ({ explain } = await load('install_error.ts'));
});

const CASES = [
  ['disk', 'ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device'],
  [
    'network',
    "WARNING: Retrying ... NewConnectionError('<pip._vendor...>: Failed to establish a new connection: [Errno -3] Temporary failure in name resolution')\nERROR: No matching distribution found for attrs",
  ],
  [
    'network',
    'ERROR: Could not find a version that satisfies the requirement ruff (from versions: none)\nERROR: No matching distribution found for ruff>=0.6',
  ],
  [
    'venv',
    'The virtual environment was not created successfully because ensurepip is not\navailable.'.replace('\n', ' '),
  ],
  ['venv', '/usr/bin/python3: No module named venv'],
  ['failed', 'Traceback: something else'],
];

for (const [trouble, output] of CASES) {
  test(`${trouble}: ${output.slice(0, 50)}`, () => {
    const error = explain('Installing the packages', output);
    assert.equal(error.trouble, trouble);
    assert.match(error.message, /not installed/);
    assert.equal(error.message.includes('\n'), false);
  });
}
