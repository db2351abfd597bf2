// A proposal in the real editor, by the VS Code API: lenses, code actions, approving, undo.

const assert = require('node:assert/strict');
const vscode = require('vscode');
const { activated, ask, file, opened, proposal, until } = require('./scene');

const GREETING = "def greet(name):\n    return 'Hello ' + name\n\n\ndef part(name):\n    return 'Bye ' + name\n";
const APPROVED = GREETING.replace("'Hello ' + name", "f'Hello {name}'");

const hunk = (read, at) => ({ hunkId: read.files[0].hunks[at].hunkId, digest: read.files[0].hunks[at].digest });
const approve = (read, at) =>
  ask('selfloop.gate.resolve', { gateId: read.gate.gateId, optionId: 'approve', hunks: [hunk(read, at)] });
const statuses = async (read) =>
  (await ask('selfloop.gate.read', { gateId: read.gate.gateId })).files[0].hunks.map((one) => one.status);
const lenses = async (name) =>
  (await vscode.commands.executeCommand('vscode.executeCodeLensProvider', file(name), 50)).map((one) => ({
    line: one.range.start.line,
    title: one.command?.title,
  }));

describe('a proposal', () => {
  before(activated);
  let read;

  beforeEach(async () => {
    await vscode.commands.executeCommand('workbench.action.closeAllEditors');
    await opened('greet.py', GREETING);
    read = await proposal('Use f-strings.');
  });

  afterEach(async () => {
    const { gates } = await ask('selfloop.gate.list', { state: 'open' });
    for (const { gateId, digest } of gates) await ask('selfloop.gate.resolve', { gateId, optionId: 'reject', digest });
    await vscode.commands.executeCommand('workbench.action.files.revert');
  });

  it('has a row of lenses above each hunk', async () => {
    const shown = await until(async () => {
      const found = await lenses('greet.py');
      return found.length >= 6 && found;
    }, 'six lenses');
    assert.deepEqual([...new Set(shown.map((one) => one.line))], [1, 5]);
    assert.deepEqual(shown.filter((one) => one.line === 1).map((one) => one.title), ['Approve', 'Reject', 'Diff']);
  });

  it('offers code actions on a hunk that no save and no quick fix can run', async () => {
    const place = new vscode.Range(1, 4, 1, 4);
    const actions = await vscode.commands.executeCommand('vscode.executeCodeActionProvider', file('greet.py'), place);
    const titles = actions.map((one) => one.title);
    assert(titles.some((one) => /approve/i.test(one)), titles.join(', '));
    for (const one of actions.filter((action) => /selfloop|approve|reject/i.test(action.title))) {
      assert(!one.isPreferred, one.title);
      assert(!/^(quickfix|source|refactor)/.test(one.kind?.value ?? ''), `${one.title}: ${one.kind?.value}`);
    }
  });

  it('shows no diagnostics: those are for other editors', () => {
    const ours = vscode.languages.getDiagnostics(file('greet.py')).filter((one) => one.source === 'selfloop');
    assert.deepEqual(ours, []);
  });

  it('changes nothing when the file is saved with every code action on', async () => {
    const configuration = vscode.workspace.getConfiguration('editor');
    const every = { 'source.fixAll': 'explicit', 'source.organizeImports': 'explicit', quickfix: 'explicit' };
    await configuration.update('codeActionsOnSave', every, vscode.ConfigurationTarget.Global);
    const editor = vscode.window.activeTextEditor;
    await editor.edit((edit) => edit.insert(new vscode.Position(3, 0), '# mine\n'));
    await editor.document.save();
    await configuration.update('codeActionsOnSave', undefined, vscode.ConfigurationTarget.Global);
    assert.equal(editor.document.getText(), GREETING.replace('\n\n\n', '\n\n# mine\n\n'));
    assert.deepEqual(await statuses(read), ['pending', 'pending']);
  });

  it('is approved by hunk, and a file that was clean is saved', async () => {
    const { document } = vscode.window.activeTextEditor;
    await approve(read, 0);
    await until(() => document.getText() === APPROVED, 'the approved text');
    await until(() => !document.isDirty, 'the saved file');
    assert.equal(Buffer.from(await vscode.workspace.fs.readFile(file('greet.py'))).toString(), APPROVED);
    assert.deepEqual(await statuses(read), ['approved', 'pending']);
  });

  it('leaves a dirty file dirty, and what was typed elsewhere stands', async () => {
    const { document } = vscode.window.activeTextEditor;
    await vscode.window.activeTextEditor.edit((edit) => edit.insert(new vscode.Position(6, 0), '# mine\n'));
    await approve(read, 0);
    await until(() => document.getText() === `${APPROVED}# mine\n`, 'both');
    assert(document.isDirty);
    assert.equal(Buffer.from(await vscode.workspace.fs.readFile(file('greet.py'))).toString(), GREETING);
  });

  it("is one step of the editor's own undo, after which the hunk waits again", async () => {
    const { document } = vscode.window.activeTextEditor;
    await approve(read, 0);
    await until(() => document.getText() === APPROVED && !document.isDirty, 'the approved text, saved');
    await vscode.commands.executeCommand('undo');
    await until(() => document.getText() === GREETING, 'the text as it was');
    await until(async () => (await statuses(read))[0] === 'pending', 'the hunk to wait again');
    await vscode.commands.executeCommand('redo');
    await until(() => document.getText() === APPROVED, 'the approved text again');
    await until(async () => (await statuses(read))[0] === 'approved', 'the hunk to be approved again');
  });

  it('is taken back over all its files', async () => {
    const { document } = vscode.window.activeTextEditor;
    await approve(read, 0);
    await until(() => document.getText() === APPROVED, 'the approved text');
    const { conflicts } = await ask('selfloop.change.undo', { gateId: read.gate.gateId });
    assert.deepEqual(conflicts ?? [], []);
    await until(() => document.getText() === GREETING, 'the text as it was');
  });

  it('leaves a file closed that was closed', async () => {
    await vscode.commands.executeCommand('workbench.action.closeAllEditors');
    // VS Code may keep the document of a closed editor for a while; on the disk it comes to the same.
    await approve(read, 0);
    await until(
      async () => Buffer.from(await vscode.workspace.fs.readFile(file('greet.py'))).toString() === APPROVED, 'the file',
    );
    assert.equal(vscode.window.visibleTextEditors.length, 0);
  });
});

describe('a file with line ends and letters of every kind', () => {
  before(activated);

  it('keeps them through an approval', async () => {
    const text = "def greet(name):\r\n    return 'Hello ' + name\r\n\r\n\r\ndef part(name):\r\n    return 'Bye ' + name  # 🎉\r\n";
    const { document } = await opened('greet.py', text);
    const read = await proposal('Use f-strings.');
    await approve(read, 1);
    await until(() => document.getText() === text.replace("'Bye ' + name", "f'Bye {name}'"), 'the approved text');
    assert.equal(document.eol, vscode.EndOfLine.CRLF);
    await ask('selfloop.gate.resolve', { gateId: read.gate.gateId, optionId: 'reject', hunks: [hunk(read, 0)] });
  });
});

describe('a selection', () => {
  before(activated);

  it('can be explained, fixed, improved and tested, never by a preferred action', async () => {
    await opened('greet.py', GREETING);
    await ask('selfloop.status');
    const titles = await until(async () => {
      const range = new vscode.Range(0, 0, 1, 10);
      const found = await vscode.commands.executeCommand('vscode.executeCodeActionProvider', file('greet.py'), range);
      const ours = found.filter((one) => /Selfloop/.test(one.title));
      for (const one of ours) assert(!one.isPreferred, one.title);
      return ours.length && ours.map((one) => one.title);
    }, 'code actions');
    for (const word of [/explain/i, /improve/i, /test/i]) assert(titles.some((one) => word.test(one)), titles.join(', '));
  });
});
