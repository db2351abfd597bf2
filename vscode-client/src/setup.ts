// The first five minutes: the checklist, the model page, keys, and the offline model.
//
// Invariant: everything here can be done from the palette too, and nothing is installed, started or sent before the
// user asked for it. What fails is shown as one sentence.

import * as vscode from 'vscode';
import { checklist, remedy } from './checklist';
import { isOlder } from './environment';
import type { Installation } from './install';
import { showIsolationHelp } from './isolation_help';
import { Keys } from './keys';
import { ModelChoice } from './model_choice';
import { KNOWN_ENDPOINTS, originOf } from './models';
import { OFFLINE_MODEL, OfflineModel } from './offline';
import { sentence, show, type Server } from './server';
import type { Sessions } from './sessions';
import type { ChecklistItem, ModelPage, SetUpAction } from './setup_page';
import { unlinked } from './trust_card';

export type { ChecklistItem, EndpointRow, ModelPage, ModelRow, SetUpAction } from './setup_page';

const FIRST_PROMPT = 'Say what this project does and improve two places.';

/** The first five minutes, and whatever of them is done again later. */
export class SetUp implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  /** The checklist or the model page has changed: ask for it again. */
  readonly onDidChange = this.changed.event;
  private readonly asked = new vscode.EventEmitter<void>();
  /** Someone wants the model page in view (command, status bar, checklist). */
  readonly onOpenModelPage = this.asked.event;
  private readonly suggested = new vscode.EventEmitter<string>();
  /** A first prompt to put into the composer, for the user to send or change. */
  readonly onSuggestPrompt = this.suggested.event;
  private readonly keys: Keys;
  private readonly models: ModelChoice;
  private readonly offline = new OfflineModel();
  private readonly subscriptions: vscode.Disposable[];
  private restarted = false;
  private tending: Promise<void> | undefined;

  constructor(
    context: vscode.ExtensionContext,
    private readonly server: Server,
    private readonly installation: Installation,
    _sessions: Sessions,
  ) {
    this.keys = new Keys(context, server);
    this.models = new ModelChoice(context, server, this.keys);
    const fire = (): void => this.changed.fire();
    const command = (name: string, body: () => Promise<unknown>): vscode.Disposable =>
      vscode.commands.registerCommand(`selfloop.setup.${name}`, () => body().catch(show));
    this.subscriptions = [
      this.keys,
      this.models,
      this.keys.onDidChange(fire),
      this.models.onDidChange(fire),
      installation.onDidChange(fire),
      server.onDidChangeState((state) => {
        this.changed.fire();
        if (state.kind === 'running') void this.begun();
      }),
      server.onStatus(fire),
      vscode.workspace.onDidChangeWorkspaceFolders(fire),
      vscode.workspace.onDidGrantWorkspaceTrust(() => {
        this.changed.fire();
        // After the connection has told the server of it.
        setTimeout(() => void this.refresh(), 50);
      }),
      vscode.workspace.onDidChangeConfiguration((event) => {
        if (event.affectsConfiguration('selfloop.server.path')) void server.restart();
        else if (event.affectsConfiguration('selfloop.server.python') && server.state.kind === 'missing')
          void server.start();
        if (event.affectsConfiguration('selfloop')) this.changed.fire();
      }),
      vscode.window.onDidChangeWindowState((state) => {
        if (state.focused) void this.tendOffline();
      }),
      command('open', () => this.act({ do: 'openModelPage' })),
      command('install', () => this.act({ do: 'install' })),
      command('model', () => this.chooseModel()),
      command('key', () => this.chooseOrigin('Set the Key For', (origin) => this.act({ do: 'setKey', origin }))),
      command('forgetKey', () => this.forgetKey()),
      command('offline', () => this.act({ do: 'offline' })),
    ];
  }

  /** Return the checklist's lines as they are now. */
  checklist(): ChecklistItem[] {
    return checklist({
      folders: (vscode.workspace.workspaceFolders ?? []).map((folder) => folder.name),
      trusted: vscode.workspace.isTrusted,
      server: this.server.state,
      status: this.server.status,
      installing: this.installation.step,
      trouble: this.installation.trouble,
      isOwn: this.installation.isOwn,
      tested: this.models.tested,
      notice: this.models.notice,
    });
  }

  /** Return what the model page shows now. */
  modelPage(): ModelPage {
    return this.models.page();
  }

  /** Do what a button asks for; never rejects: what fails is shown. */
  async act(action: SetUpAction): Promise<void> {
    try {
      await this.carryOut(action);
    } catch (error) {
      show(error);
    }
  }

  private async carryOut(action: SetUpAction): Promise<void> {
    switch (action.do) {
      case 'install':
        return this.install();
      case 'trust':
        await vscode.commands.executeCommand('workbench.trust.manage');
        return;
      case 'openFolder':
        await vscode.commands.executeCommand('workbench.action.files.openFolder');
        return;
      case 'openModelPage':
        await vscode.commands.executeCommand('selfloop.chat.focus');
        // Without a server there are no models to choose from: the checklist says what to do first.
        if (this.server.state.kind === 'missing' || this.server.state.kind === 'failed') return;
        this.asked.fire();
        return this.models.search();
      case 'offline':
        return this.playOffline();
      case 'isolationHelp':
        if (await showIsolationHelp(this.server.status))
          await this.server.request('selfloop/restart', { when: 'idle' });
        return;
      case 'restart':
        return this.server.restart();
      case 'showOutput':
        return this.server.output.show();
      case 'testModel':
        return this.models.tryOut();
      case 'choosePython':
        return this.choosePython();
      case 'openSettings':
        await vscode.commands.executeCommand('workbench.action.openSettings', 'selfloop.server');
        return;
      case 'addEndpoint':
        return this.models.add();
      case 'selectModel':
        await this.models.select(action.model, action.baseUrl);
        return;
      case 'nameModel':
        return this.models.name(action.baseUrl);
      case 'removeEndpoint':
        return this.models.remove(action.baseUrl);
      case 'setKey':
        if (await this.keys.ask(action.origin)) await this.models.search();
        return;
      case 'forgetKey':
        await this.keys.forget(action.origin);
        return this.models.search();
    }
  }

  // What the buttons do

  private async install(): Promise<void> {
    if (!this.installation.isOwn) {
      throw new Error(
        'The setting selfloop.server.path names the server, so nothing was installed; empty it to use the one that comes with the extension.',
      );
    }
    try {
      await this.installation.install();
    } catch (error) {
      const trouble = this.installation.trouble;
      if (trouble?.trouble === 'cancelled') {
        void vscode.window.showInformationMessage(unlinked(trouble.message));
        return;
      }
      void this.offerRemedy(sentence(error));
      return;
    }
    if (this.server.state.kind === 'running') await this.server.request('selfloop/restart', { when: 'idle' });
    else await this.server.start();
  }

  private async offerRemedy(message: string): Promise<void> {
    const help = remedy(this.installation.trouble);
    const output = 'Show Output';
    const picked = await vscode.window.showErrorMessage(unlinked(message), ...(help === undefined ? [] : [help.label]), output);
    if (picked === output) this.server.output.show();
    else if (picked !== undefined && help !== undefined) await this.act({ do: help.id });
  }

  private async choosePython(): Promise<void> {
    const picked = await vscode.window.showOpenDialog({
      title: 'Choose a Python, 3.11 or Newer',
      openLabel: 'Use This Python',
      canSelectMany: false,
      defaultUri: vscode.Uri.file('/usr/bin'),
    });
    const file = picked?.[0];
    if (file === undefined) return;
    const configuration = vscode.workspace.getConfiguration('selfloop');
    await configuration.update('server.python', file.fsPath, vscode.ConfigurationTarget.Global);
    await this.install();
  }

  private async chooseModel(): Promise<void> {
    await this.needServer();
    const searching = { location: vscode.ProgressLocation.Window, title: 'Selfloop: looking for models' };
    await vscode.window.withProgress(searching, () => this.models.search());
    await this.models.choose();
  }

  private async chooseOrigin(title: string, use: (origin: string) => Promise<void>): Promise<void> {
    const listed = this.models.page().endpoints.filter((one) => one.origin !== '');
    const endpoints = [
      ...listed,
      ...KNOWN_ENDPOINTS.filter((one) => !listed.some((row) => row.origin === originOf(one.baseUrl))),
    ];
    const items = endpoints.map((one) => ({ label: one.name, description: originOf(one.baseUrl) ?? '' }));
    const other = { label: 'Another address…', description: '' };
    const picked = await vscode.window.showQuickPick([...items, other], { title });
    if (picked === undefined) return;
    const origin = picked === other ? await askOrigin() : picked.description;
    if (origin) await use(origin);
  }

  private async forgetKey(): Promise<void> {
    const origins = this.keys.origins;
    if (origins.length === 0) {
      void vscode.window.showInformationMessage('No key is kept, so there is none to forget.');
      return;
    }
    const origin = await vscode.window.showQuickPick(origins, { title: 'Forget the Key For' });
    if (origin !== undefined) await this.act({ do: 'forgetKey', origin });
  }

  // The offline model

  private async playOffline(): Promise<void> {
    if (!vscode.workspace.isTrusted) {
      throw new Error('This workspace is not trusted, so the offline model was not started; trust it first.');
    }
    await vscode.commands.executeCommand('selfloop.chat.focus');
    await this.needServer();
    await this.startOffline();
    this.suggested.fire(FIRST_PROMPT);
  }

  private async startOffline(): Promise<void> {
    const python = this.installation.python;
    if (python === undefined) {
      throw new Error(
        'No Python was found beside the program of selfloop.server.path, so the offline model was not started; empty the setting, or choose another model.',
      );
    }
    const heard = (line: string): void => this.server.output.warn(`offline model: ${line}`);
    const url = await this.offline.start(python, this.installation.folder, this.installation.variables, heard);
    await this.models.select(OFFLINE_MODEL, url);
  }

  /** If the offline model is chosen and does not answer (an earlier window's has ended with it), start it again. */
  private tendOffline(): Promise<void> {
    this.tending ??= this.tend().finally(() => (this.tending = undefined));
    return this.tending;
  }

  private async tend(): Promise<void> {
    if (this.server.status?.model !== OFFLINE_MODEL || !vscode.workspace.isTrusted) return;
    try {
      await this.server.request('selfloop/model/list', {});
    } catch {
      // What was listening there is gone, or never was.
      try {
        await this.startOffline();
      } catch (error) {
        this.server.output.error(sentence(error));
      }
    }
  }

  // The server's life

  /** Bring a server process that has just been started to where the last one was. */
  private async begun(): Promise<void> {
    try {
      await this.keys.tellAll();
      await this.server.refresh();
      await this.renew();
      await this.tendOffline();
    } catch (error) {
      this.server.output.error(`After the start: ${sentence(error)}`);
    }
  }

  /** Where another window's server still is of an older version than the one that is installed, have it renewed. */
  private async renew(): Promise<void> {
    const status = this.server.status;
    if (status === undefined || this.restarted || !this.installation.isOwn) return;
    if (!this.installation.upgraded && !isOlder(status.version, this.server.version)) return;
    this.restarted = true;
    this.server.output.info(
      `The worker that serves has version ${status.version}; a new one begins when no turn runs.`,
    );
    await this.server.request('selfloop/restart', { when: 'idle' });
  }

  /** Have a server that runs, installed first if it is not: what calls this was asked for by the user. */
  private async needServer(): Promise<void> {
    if (this.server.state.kind === 'missing' && this.installation.isOwn) await this.install();
    await this.server.start();
    const state = this.server.state;
    if (state.kind !== 'running') {
      throw new Error('reason' in state ? state.reason : 'The server is not running, so nothing was done; restart it.');
    }
  }

  private async refresh(): Promise<void> {
    try {
      await this.server.refresh();
    } catch (error) {
      this.server.output.warn(`The status could not be read: ${sentence(error)}`);
    }
  }

  dispose(): void {
    this.offline.dispose();
    for (const one of this.subscriptions) one.dispose();
    this.changed.dispose();
    this.asked.dispose();
    this.suggested.dispose();
  }
}

async function askOrigin(): Promise<string | undefined> {
  const given = await vscode.window.showInputBox({
    title: 'Address of the Provider',
    placeHolder: 'https://host/v1',
    ignoreFocusOut: true,
    validateInput: (text) =>
      !text || originOf(text) ? undefined : 'Write it like https://host/v1, without a user name.',
  });
  return given === undefined ? undefined : originOf(given);
}
