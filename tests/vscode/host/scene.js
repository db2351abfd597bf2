// What the tests in the extension host share: waiting for a condition, and a proposal in the workspace.

const assert = require('node:assert/strict');
const vscode = require('vscode');

/** A machine on which others work too needs more patience; the window inherits the variable. */
const PATIENCE = Number(process.env.SELFLOOP_TEST_PATIENCE ?? '1');

/** Wait until `look` gives something true, and return it. */
async function until(look, what, milliseconds = 30_000 * PATIENCE) {
  const end = Date.now() + milliseconds;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > end) throw new Error(`waited ${milliseconds} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** The extension, activated. */
async function activated() {
  const extension = vscode.extensions.getExtension('selfloop.selfloop');
  assert(extension, 'the extension is not there');
  await extension.activate();
  return extension;
}

/** The URI of a file of the workspace. */
function file(name) {
  return vscode.Uri.joinPath(vscode.workspace.workspaceFolders[0].uri, name);
}

/** A command of the server's, once the server has registered it. */
async function ask(command, argument = {}) {
  await until(async () => (await vscode.commands.getCommands(true)).includes(command), `the command ${command}`);
  return vscode.commands.executeCommand(command, argument);
}

/** Prompt in a new session, and wait for the gate that comes of it; returns what `gate/read` says. */
async function proposal(text) {
  const { sessionId } = await ask('selfloop.session.new');
  await ask('selfloop.session.prompt', { sessionId, text });
  const gate = await until(async () => {
    const { gates } = await ask('selfloop.gate.list', { state: 'open' });
    return gates.find((one) => one.sessionId === sessionId);
  }, `a gate of ${sessionId}`);
  return ask('selfloop.gate.read', { gateId: gate.gateId });
}

/** Open a file in front, with exactly this text, saved. */
async function opened(name, text) {
  await vscode.workspace.fs.writeFile(file(name), Buffer.from(text));
  const document = await vscode.workspace.openTextDocument(file(name));
  await until(() => document.getText() === text, `${name} as it was written`);
  const editor = await vscode.window.showTextDocument(document);
  return { document, editor };
}

module.exports = { PATIENCE, activated, ask, file, opened, proposal, until };
