// The chat panel's side in the extension host: the view, what it is shown, and what it asks for.
//
// Invariant: the panel only asks. What it asks for is done here by the parts that own it, and a failure comes back to it
// as one sentence.

import * as vscode from 'vscode';
import { Attachments } from './attachments';
import { Cards } from './cards';
import { Feed } from './feed';
import type { Gates } from './gates';
import { LiveChanges } from './live_changes';
import { openLink, openLocation } from './open_link';
import { panelHtml, panelRoot } from './panel_html';
import type { FromPanel, PanelCommand, ToPanel } from './panel/messages';
import { plain } from './panel/text';
import type { AskResult, UpdateEnvelope } from './protocol';
import type { Review } from './review';
import { sentence, show, type Server } from './server';
import type { Sessions } from './sessions';
import type { SetUp } from './setup';

const VIEW = 'selfloop.chat';
const HISTORY = 'history';
const MOST_HISTORY = 100;
/** Messages that wait for a panel which is not there yet; the others are sent anew when it comes. */
const KEPT = new Set<ToPanel['type']>(['page', 'focus', 'attach', 'suggest', 'notice']);

const COMMANDS: Record<Exclude<PanelCommand, 'new' | 'model'>, string> = {
  rules: 'selfloop.rules.show',
  review: 'selfloop.review.open',
  undo: 'selfloop.review.undo',
  output: 'selfloop.server.output',
  evolve: 'selfloop.evolve',
};

export class ChatPanel implements vscode.WebviewViewProvider, vscode.Disposable {
  private view: vscode.WebviewView | undefined;
  private ready = false;
  private waiting: ToPanel[] = [];
  /** The sessions that the page shows were listed with this query; undefined: the page is not in view. */
  private query: string | undefined;
  private relisting: NodeJS.Timeout | undefined;
  private readonly feed: Feed;
  private readonly cards: Cards;
  private readonly attachments: Attachments;
  private readonly live: LiveChanges;
  private readonly subscriptions: vscode.Disposable[];

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly server: Server,
    private readonly sessions: Sessions,
    private readonly gates: Gates,
    private readonly review: Review,
    private readonly setUp: SetUp,
  ) {
    this.feed = new Feed(server, sessions, (message) => this.send(message));
    this.cards = new Cards(gates, (card) => this.send({ type: 'card', card }));
    this.attachments = new Attachments(server);
    this.live = new LiveChanges(server);
    const command = (name: string, body: (...args: unknown[]) => unknown): vscode.Disposable =>
      vscode.commands.registerCommand(`selfloop.panel.${name}`, (...args: unknown[]) =>
        Promise.resolve(body(...args)).catch(show),
      );
    this.subscriptions = [
      this.feed,
      this.cards,
      this.attachments,
      this.live,
      vscode.window.registerWebviewViewProvider(VIEW, this, { webviewOptions: { retainContextWhenHidden: true } }),
      sessions.onDidChangeCurrent(() => this.switched()),
      sessions.onDidChange(() => this.label()),
      server.onUpdate((envelope) => this.updated(envelope)),
      server.onStatus(() => this.sendStatus()),
      setUp.onDidChange(() => this.sendSetUp()),
      setUp.onOpenModelPage(() => void this.reveal({ type: 'page', page: 'models' }).catch(show)),
      setUp.onSuggestPrompt(
        (text) => void this.reveal({ type: 'page', page: 'chat' }, { type: 'suggest', text }).catch(show),
      ),
      this.attachments.onDidChangeOffer((attachments) => this.send({ type: 'offer', attachments })),
      command('open', () => this.reveal({ type: 'focus' })),
      command('newSession', () => this.begin()),
      command('sessions', () => this.reveal({ type: 'page', page: 'sessions' })),
      command('cancel', () => this.cancel()),
      command('attachSelection', () => this.attach('selection')),
      command('attachFile', (uri, more) => this.attachFiles(uri, more)),
    ];
    this.intercept();
    this.label();
  }

  // The view

  resolveWebviewView(view: vscode.WebviewView): void {
    this.view = view;
    this.ready = false;
    const { webview } = view;
    webview.options = { enableScripts: true, localResourceRoots: [panelRoot(this.context.extensionUri)] };
    const listening = [
      webview.onDidReceiveMessage((message: FromPanel) => void this.asked(message)),
      view.onDidDispose(() => {
        for (const one of listening) one.dispose();
        if (this.view !== view) return;
        this.view = undefined;
        this.ready = false;
      }),
    ];
    webview.html = panelHtml(webview, this.context.extensionUri);
    this.label();
  }

  private send(message: ToPanel): void {
    if (this.view !== undefined && this.ready) void this.view.webview.postMessage(message);
    else if (KEPT.has(message.type)) this.waiting.push(message);
  }

  /** Bring the panel into view, and tell it something. */
  private async reveal(...messages: ToPanel[]): Promise<void> {
    await vscode.commands.executeCommand(`${VIEW}.focus`);
    for (const message of messages) this.send(message);
  }

  /** The panel is there: it gets everything that it shows. */
  private async begun(): Promise<void> {
    this.ready = true;
    this.cards.clear();
    this.sendStatus();
    this.sendSetUp();
    this.send({ type: 'history', entries: this.history });
    this.send({ type: 'offer', attachments: this.attachments.offer() });
    await this.feed.open();
    for (const message of this.waiting.splice(0)) this.send(message);
  }

  private sendStatus(): void {
    const model = this.server.status?.model ?? undefined;
    const folders = (vscode.workspace.workspaceFolders ?? []).map(({ uri, name }) => ({ uri: uri.toString(), name }));
    this.send({ type: 'status', folders, ...(model === undefined ? {} : { model }) });
  }

  private sendSetUp(): void {
    const items = this.setUp.checklist();
    // Without isolation everything works, only more is asked.
    const ready = items.every((item) => item.id === 'isolation' || item.state === 'ok' || item.state === 'warning');
    this.send({ type: 'checklist', items, ready });
    this.send({ type: 'models', models: this.setUp.modelPage() });
  }

  /** The view's own head names the session; what runs in it decides whether it can be stopped. */
  private label(): void {
    const id = this.sessions.current;
    void vscode.commands.executeCommand(
      'setContext',
      'selfloop.running',
      id !== undefined && this.sessions.isRunning(id),
    );
    if (this.view === undefined) return;
    const title = id === undefined ? '' : (this.sessions.title(id) ?? '');
    this.view.description = plain(title).slice(0, 80);
  }

  private switched(): void {
    this.label();
    this.cards.clear();
    if (this.ready) void this.feed.open();
  }

  private updated({ update, sessionId }: UpdateEnvelope): void {
    if (sessionId === undefined) {
      if (update.type === 'notice') this.send({ type: 'notice', severity: update.severity, text: update.text });
      return;
    }
    if (update.type !== 'state') return;
    if (this.query !== undefined) this.relistSoon();
    if (update.state === 'idle' && sessionId === this.sessions.current) this.offerReview(sessionId);
  }

  /** A proposal waits, and the user does not look at the panel. */
  private offerReview(sessionId: string): void {
    if (
      this.view?.visible === true ||
      !vscode.workspace.getConfiguration('selfloop').get('notifyWhenReviewWaits', true)
    )
      return;
    const gate = this.gates.open.findLast((one) => one.sessionId === sessionId && one.subject['type'] === 'changes');
    if (gate === undefined) return;
    const review = 'Review';
    void vscode.window
      .showInformationMessage(`Waits for your review: ${plain(gate.title)}`, review, 'Open Chat')
      .then((chosen) => {
        if (chosen === review) return this.review.open(gate.gateId);
        return chosen === undefined ? undefined : this.reveal({ type: 'focus' });
      });
  }

  // What the panel asks for

  private async asked(message: FromPanel): Promise<void> {
    try {
      await this.handle(message);
    } catch (error) {
      this.send({ type: 'notice', severity: 'error', text: sentence(error) });
    }
  }

  private async handle(message: FromPanel): Promise<void> {
    switch (message.type) {
      case 'ready':
        return this.begun();
      case 'page':
        if (message.page !== 'sessions') this.query = undefined;
        return this.send({ type: 'page', page: message.page });
      case 'send':
        return this.prompt(message);
      case 'cancel':
        return this.cancel();
      case 'older':
        return this.feed.older(message.epoch, message.before);
      case 'requeue':
        return this.requeue(message.messageId, message.text);
      case 'steer':
        return this.steer(message.messageId, message.text);
      case 'link':
        return openLink(message.href);
      case 'location':
        return openLocation(message.uri, message.line);
      case 'document': {
        const document = await vscode.workspace.openTextDocument({
          content: plain(message.text),
          language: message.language,
        });
        await vscode.window.showTextDocument(document, { preview: true });
        return undefined;
      }
      case 'changes':
        return this.sessions.current === undefined
          ? undefined
          : this.live.show(this.sessions.current, vscode.Uri.parse(message.uri));
      case 'card':
        return this.cards.show(message.gateId);
      case 'review':
        return this.review.open(message.gateId, message.uri);
      case 'resolve':
        await this.gates.resolve(message.gateId, message.optionId, message.hunks, undefined, message.digest);
        return undefined;
      case 'undo':
        return this.gates.undo(message.gateId);
      case 'files':
        return this.send({ type: 'files', id: message.id, files: await this.attachments.find(message.query) });
      case 'attach':
        return this.send({ type: 'attach', attachments: [this.attachments.take(message.what)] });
      case 'run':
        return this.run(message.command);
      case 'sessions':
        this.query = message.query;
        return this.relist();
      case 'open':
        this.query = undefined;
        this.sessions.open(message.sessionId);
        this.send({ type: 'page', page: 'chat' });
        return this.send({ type: 'focus' });
      case 'rename':
        return this.rename(message.sessionId ?? this.sessions.current, message.title);
      case 'delete':
        return this.delete(message.sessionId);
      case 'act':
        return this.setUp.act(message.action);
    }
  }

  private async prompt({ id, text, context, delivery }: Extract<FromPanel, { type: 'send' }>): Promise<void> {
    const entries = [...this.history.filter((one) => one !== text), text].slice(-MOST_HISTORY);
    void this.context.workspaceState.update(HISTORY, entries);
    this.send({ type: 'history', entries });
    try {
      const { messageId } = await this.sessions.prompt(text, context, delivery);
      this.send({ type: 'sent', id, messageId });
    } catch (error) {
      this.send({ type: 'sent', id, error: sentence(error) });
    }
  }

  private get history(): string[] {
    return this.context.workspaceState.get<string[]>(HISTORY, []);
  }

  private async cancel(): Promise<void> {
    if (this.sessions.current !== undefined) await this.sessions.cancel(this.sessions.current);
  }

  private async requeue(messageId: string, text: string | undefined): Promise<void> {
    const sessionId = this.sessions.current;
    if (sessionId === undefined) return;
    await this.server.request('selfloop/session/requeue', {
      sessionId,
      messageId,
      ...(text === undefined ? {} : { text }),
    });
  }

  /** Take a message out of the queue and steer with it; if that fails it lies in the composer. */
  private async steer(messageId: string, text: string): Promise<void> {
    await this.requeue(messageId, undefined);
    try {
      await this.sessions.prompt(text, [], 'steer');
    } catch (error) {
      this.send({ type: 'suggest', text });
      throw error;
    }
  }

  private async run(command: PanelCommand): Promise<void> {
    if (command === 'new') await this.begin();
    else if (command === 'model') await this.setUp.act({ do: 'openModelPage' });
    else await vscode.commands.executeCommand(COMMANDS[command]);
  }

  private async begin(): Promise<void> {
    this.query = undefined;
    await this.sessions.begin();
    await this.reveal({ type: 'page', page: 'chat' }, { type: 'focus' });
  }

  private relistSoon(): void {
    clearTimeout(this.relisting);
    this.relisting = setTimeout(
      () => void this.relist().catch((error: unknown) => this.server.output.debug(String(error))),
      300,
    );
  }

  private async relist(): Promise<void> {
    const query = this.query;
    if (query === undefined) return;
    const sessions = await this.sessions.list(query);
    if (query === this.query) this.send({ type: 'sessions', query, sessions });
  }

  private async rename(sessionId: string | undefined, title: string | undefined): Promise<void> {
    if (sessionId === undefined) throw new Error('This session has no message yet, so there is nothing to rename.');
    const value = this.sessions.title(sessionId) ?? '';
    const name =
      title ?? (await vscode.window.showInputBox({ title: 'Rename the Session', value, prompt: 'Its new title' }));
    if (!name?.trim()) return;
    await this.sessions.rename(sessionId, name);
    await this.relist();
  }

  private async delete(sessionId: string): Promise<void> {
    const title = plain(this.sessions.title(sessionId) ?? '').slice(0, 80) || 'this session';
    const detail =
      'Its messages go away, what runs in it is stopped, and what waits in it is withdrawn. Changes that you approved stay.';
    const chosen = await vscode.window.showWarningMessage(`Delete “${title}”?`, { modal: true, detail }, 'Delete');
    if (chosen !== 'Delete') return;
    await this.sessions.delete(sessionId);
    await this.relist();
  }

  // Commands of the editor's

  private async attach(what: 'selection' | 'file'): Promise<void> {
    await this.reveal({ type: 'page', page: 'chat' }, { type: 'attach', attachments: [this.attachments.take(what)] });
  }

  private async attachFiles(uri: unknown, more: unknown): Promise<void> {
    const chosen = (Array.isArray(more) ? more : [uri]).filter((one) => one instanceof vscode.Uri);
    const attachments =
      chosen.length > 0 ? chosen.map((one) => this.attachments.take('file', one)) : [this.attachments.take('file')];
    await this.reveal({ type: 'page', page: 'chat' }, { type: 'attach', attachments });
  }

  /** A light bulb or a lens asks the agent: it happens in the session in view, in front of the user. */
  private intercept(): void {
    const earlier = this.server.hooks.command;
    this.server.hooks.command = async (name, argument) => {
      if (await earlier?.(name, argument)) return true;
      if (name !== 'selfloop.ask') return false;
      try {
        await this.reveal({ type: 'page', page: 'chat' });
        // What is out of date is made again by the session that has made it.
        const sessionId =
          argument['intent'] === 'again' || argument['sessionId'] !== undefined
            ? undefined
            : await this.sessions.ensure();
        const result = await this.server.execute<AskResult>(name, {
          ...argument,
          ...(sessionId === undefined ? {} : { sessionId }),
        });
        this.sessions.open(result.sessionId);
      } catch (error) {
        show(error);
      }
      return true;
    };
  }

  dispose(): void {
    clearTimeout(this.relisting);
    for (const one of this.subscriptions) one.dispose();
  }
}
