// What VS Code runs inside its extension host: every *.test.js beside this file, by mocha. The result of each test goes
// as one line of JSON to the file that SELFLOOP_TEST_REPORT names, where tests/vscode/test_extension_host.py reads it.

const fs = require('node:fs');
const path = require('node:path');
const { PATIENCE } = require('./scene');
const Mocha = require(process.env.SELFLOOP_TEST_MOCHA);

function reporter(runner) {
  const write = (test, state, error) =>
    fs.appendFileSync(
      process.env.SELFLOOP_TEST_REPORT,
      JSON.stringify({ title: test.fullTitle(), state, error: error && (error.stack || String(error)) }) + '\n',
    );
  runner.on('pass', (test) => write(test, 'passed'));
  runner.on('fail', (test, error) => write(test, 'failed', error));
  runner.on('pending', (test) => write(test, 'skipped'));
}

exports.run = () =>
  new Promise((resolve, reject) => {
    const mocha = new Mocha({ ui: 'bdd', timeout: 100_000 * PATIENCE, reporter });
    for (const name of fs.readdirSync(__dirname).sort()) {
      if (name.endsWith('.test.js')) mocha.addFile(path.join(__dirname, name));
    }
    mocha.run((failures) => (failures ? reject(new Error(`${failures} failed`)) : resolve()));
  });
