// What the extension registers, as the VS Code API sees it.

const assert = require('node:assert/strict');
const vscode = require('vscode');
const { activated, ask, until } = require('./scene');

describe('the extension', () => {
  it('registers every command that it contributes', async () => {
    const extension = await activated();
    const known = new Set(await vscode.commands.getCommands(true));
    const missing = extension.packageJSON.contributes.commands.map((one) => one.command).filter((one) => !known.has(one));
    assert.deepEqual(missing, []);
  });

  it('starts the server, which registers its own commands', async () => {
    await activated();
    const status = await ask('selfloop.status');
    assert.equal(status.trusted, true);
    assert.equal(status.folders.length, 1);
  });

  it('binds its review keys only while a proposal is open', async () => {
    const extension = await activated();
    const review = extension.packageJSON.contributes.keybindings.filter((one) => one.command.startsWith('selfloop.review.'));
    assert(review.length > 0);
    for (const one of review) assert.match(one.when ?? '', /selfloop\.(reviewing|canUndo)/, one.command);
  });

  it('lets no workspace choose the server, the model or the endpoint', async () => {
    const { properties } = (await activated()).packageJSON.contributes.configuration;
    for (const name of ['server.path', 'server.python', 'model', 'baseUrl', 'isolation']) {
      assert.equal(properties[`selfloop.${name}`].scope, 'machine', name);
    }
    await vscode.workspace.fs.writeFile(
      vscode.Uri.joinPath(vscode.workspace.workspaceFolders[0].uri, '.vscode/settings.json'),
      Buffer.from(JSON.stringify({ 'selfloop.baseUrl': 'http://203.0.113.1/v1' })),
    );
    await until(
      () => vscode.workspace.getConfiguration('selfloop').inspect('baseUrl') !== undefined, 'the settings',
    );
    assert.equal(vscode.workspace.getConfiguration('selfloop').get('baseUrl'), '');
  });
});
