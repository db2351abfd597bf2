// The status bar item: what serves, on which model, how well fenced, what runs, and what waits for the user.
//
// Invariant: nothing is polled. The item follows the server's state, its updates and the gates; the status is asked for
// again, a moment later, when an update says that it may have changed.

import * as vscode from 'vscode';
import type { Gates } from './gates';
import type { StatusResult, UpdateEnvelope } from './protocol';
import { sentence, show, type Server } from './server';
import type { Sessions } from './sessions';

const SETTLE_MS = 400;
const MENU = 'selfloop.status.menu';
/** The only commands that the tooltip's links may run. */
const LINKED = [
  'selfloop.panel.open',
  'selfloop.review.open',
  'selfloop.setup.open',
  'selfloop.setup.model',
  'selfloop.server.restart',
  'selfloop.server.output',
];
const ISOLATION: Record<StatusResult['isolation'], string> = {
  process: 'Commands run in a jail',
  changes: 'Commands run without a jail, and wait for you',
  none: 'Nothing runs',
};

export class StatusBar implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem('selfloop.status', vscode.StatusBarAlignment.Left, 10);
  private readonly running = new Set<string>();
  private readonly subscriptions: vscode.Disposable[];
  private asking: NodeJS.Timeout | undefined;

  constructor(
    private readonly server: Server,
    private readonly gates: Gates,
    private readonly sessions: Sessions,
  ) {
    this.item.name = 'Selfloop';
    this.item.command = MENU;
    this.subscriptions = [
      this.item,
      vscode.commands.registerCommand(MENU, () => this.menu().catch(show)),
      server.onDidChangeState((state) => {
        this.running.clear();
        if (state.kind === 'running') void this.findRunning();
        this.draw();
      }),
      server.onStatus(() => this.draw()),
      server.onUpdate((envelope) => this.updated(envelope)),
      gates.onDidChange(() => this.draw()),
      vscode.workspace.onDidGrantWorkspaceTrust(() => this.draw()),
    ];
    this.draw();
    this.item.show();
  }

  private updated({ sessionId, update }: UpdateEnvelope): void {
    if (update.type === 'state' && sessionId !== undefined) {
      if (update.state === 'running') this.running.add(sessionId);
      else this.running.delete(sessionId);
      this.draw();
    }
    if (['state', 'gate', 'generation', 'usage'].includes(update.type)) this.askSoon();
  }

  private askSoon(): void {
    this.asking ??= setTimeout(() => {
      this.asking = undefined;
      if (this.server.state.kind !== 'running') return;
      this.server.refresh().catch((error: unknown) => this.server.output.debug(`No status: ${sentence(error)}`));
    }, SETTLE_MS);
  }

  /** Turns that run since before this window was told of them. */
  private async findRunning(): Promise<void> {
    try {
      for (const one of await this.sessions.list()) if (one.state === 'running') this.running.add(one.sessionId);
      this.draw();
    } catch (error) {
      this.server.output.debug(`No list of sessions: ${sentence(error)}`);
    }
  }

  // What is shown

  private draw(): void {
    const { state, status } = this.server;
    const waiting = this.gates.open.length;
    const failed = state.kind === 'failed';
    const [icon, words] = this.face(waiting);
    this.item.text = `$(${icon}) ${words}`;
    const colour = failed
      ? 'statusBarItem.errorBackground'
      : waiting > 0
        ? 'statusBarItem.warningBackground'
        : undefined;
    this.item.backgroundColor = colour === undefined ? undefined : new vscode.ThemeColor(colour);
    this.item.tooltip = this.tooltip(status, waiting);
    this.item.accessibilityInformation = { label: this.spoken(status, waiting), role: 'button' };
  }

  private face(waiting: number): [icon: string, words: string] {
    switch (this.server.state.kind) {
      case 'failed':
        return ['error', 'Selfloop'];
      case 'missing':
        return ['tools', 'Selfloop: Set Up'];
      case 'starting':
      case 'off':
        return ['loading~spin', 'Selfloop'];
      case 'running': {
        const icon = this.running.size > 0 ? 'loading~spin' : waiting > 0 ? 'bell-dot' : this.quiet();
        return [icon, waiting > 0 ? `Selfloop ${waiting}` : 'Selfloop'];
      }
    }
  }

  private quiet(): string {
    if (!vscode.workspace.isTrusted) return 'shield';
    return this.server.status?.model === null ? 'circle-slash' : 'check';
  }

  private spoken(status: StatusResult | undefined, waiting: number): string {
    const state = this.server.state;
    if ('reason' in state) return `Selfloop: ${state.reason}`;
    const runs = this.running.size > 0 ? 'a turn runs' : state.kind === 'running' ? 'idle' : 'starting';
    const waits = waiting > 0 ? `, ${waiting} waiting for your decision` : '';
    return `Selfloop: ${runs}${waits}, model ${status?.model ?? 'none'}`;
  }

  private tooltip(status: StatusResult | undefined, waiting: number): vscode.MarkdownString {
    const text = new vscode.MarkdownString('', true);
    text.isTrusted = { enabledCommands: LINKED };
    const state = this.server.state;
    const version = status === undefined ? '' : ` ${plain(status.version)} · generation ${status.generation}`;
    text.appendMarkdown(`**Selfloop**${version}\n\n`);
    if ('reason' in state) {
      const link =
        state.kind === 'missing'
          ? '[Set up](command:selfloop.setup.open)'
          : '[Restart](command:selfloop.server.restart)';
      text.appendMarkdown(`${plain(state.reason)}\n\n${link} · [Output](command:selfloop.server.output)`);
      return text;
    }
    if (status === undefined) {
      text.appendMarkdown('$(loading~spin) The server is being started.');
      return text;
    }
    const lines = [
      this.running.size > 0
        ? `$(play) ${this.running.size === 1 ? 'A turn runs' : `${this.running.size} turns run`}`
        : '$(debug-pause) No turn runs',
      waiting > 0
        ? `$(bell-dot) **${waiting === 1 ? 'One thing waits' : `${waiting} things wait`} for your decision** · [Review](command:selfloop.review.open)`
        : '$(bell) Nothing waits for you',
      status.model === null
        ? '$(circle-slash) No model is chosen · [Choose](command:selfloop.setup.open)'
        : `$(server) ${plain(status.model)} · [Change](command:selfloop.setup.model)`,
      `$(lock) ${vscode.workspace.isTrusted ? ISOLATION[status.isolation] : 'This workspace is not trusted, so nothing runs'}`,
      `$(graph) ${spend(status)}`,
    ];
    if (status.folders.length > 1) lines.push(`$(folder) ${status.folders.map(folderName).map(plain).join(', ')}`);
    text.appendMarkdown(lines.join('\n\n'));
    if (status.isolationDetail && vscode.workspace.isTrusted && status.isolation !== 'process') {
      text.appendMarkdown(`\n\n---\n\n${plain(status.isolationDetail)}`);
    }
    return text;
  }

  // The menu

  private async menu(): Promise<void> {
    type Item = vscode.QuickPickItem & { command: string };
    const { state, status } = this.server;
    const waiting = this.gates.open.length;
    const item = (icon: string, label: string, command: string, description = ''): Item => ({
      label: `$(${icon}) ${label}`,
      command,
      description,
    });
    const items = [
      ...(state.kind === 'missing' || !vscode.workspace.isTrusted
        ? [
            item(
              'gear',
              'Set up…',
              'selfloop.setup.open',
              'reason' in state ? state.reason : 'This workspace is not trusted.',
            ),
          ]
        : []),
      item('comment-discussion', 'Open chat', 'selfloop.panel.open'),
      ...(waiting > 0
        ? [item('diff-multiple', 'Review what waits', 'selfloop.gates.focus', `${waiting} waiting`)]
        : []),
      ...(this.running.size > 0 ? [item('debug-stop', 'Stop the running turn', 'selfloop.panel.cancel')] : []),
      ...(state.kind === 'running'
        ? [item('server', 'Choose a model…', 'selfloop.setup.model', status?.model ?? 'none chosen')]
        : []),
      item('law', 'Remembered rules…', 'selfloop.rules.show'),
      ...(state.kind === 'running'
        ? [item('git-branch', 'Generations…', 'selfloop.generations.show', `generation ${status?.generation ?? 0} serves`)]
        : []),
      item('refresh', 'Restart the server', 'selfloop.server.restart'),
      item('output', 'Show output', 'selfloop.server.output'),
    ];
    const picked = await vscode.window.showQuickPick(items, {
      title: 'Selfloop',
      placeHolder: this.spoken(status, waiting),
    });
    if (picked !== undefined) await vscode.commands.executeCommand(picked.command);
  }

  dispose(): void {
    clearTimeout(this.asking);
    for (const one of this.subscriptions) one.dispose();
  }
}

function spend({ spend }: StatusResult): string {
  const count = (value: number): string => value.toLocaleString('en');
  const money = spend.costUsd === undefined ? '' : ` · $${spend.costUsd.toFixed(spend.costUsd < 1 ? 3 : 2)}`;
  const cached = spend.cachedTokens > 0 ? ` (${count(spend.cachedTokens)} of it cached)` : '';
  return `${count(spend.inputTokens)} tokens in${cached}, ${count(spend.outputTokens)} out${money}`;
}

function folderName(uri: string): string {
  return vscode.Uri.parse(uri).path.split('/').filter(Boolean).at(-1) ?? uri;
}

/** Return a text so that Markdown shows it as it stands: it may name a folder or a model that somebody else named. */
function plain(text: string): string {
  return text.replace(/[\\`*_{}[\]()#+\-.!|<>~$&:]/g, '\\$&').replace(/\s+/g, ' ');
}
