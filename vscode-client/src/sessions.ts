// The sessions of this window, and which one is in view.
//
// Invariant: a session is made with its first message, never by looking: an empty one in view is none yet. Which one is
// in view is remembered for the workspace, so that a reload of the window finds it again.

import * as vscode from 'vscode';
import type { ContextItem, SessionInfo, SessionPromptResult } from './protocol';
import { RequestError, type Server } from './server';

const KEPT = 'session';

export class Sessions implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<string | undefined>();
  /** Another session is in view, or none. */
  readonly onDidChangeCurrent = this.changed.event;
  private readonly listed = new vscode.EventEmitter<void>();
  /** The list of sessions, a title or what runs has changed. */
  readonly onDidChange = this.listed.event;
  private readonly running = new Set<string>();
  private readonly titles = new Map<string, string>();
  private inView: string | undefined;
  private folder: vscode.Uri | undefined;
  private making: Promise<string> | undefined;
  private readonly subscriptions: vscode.Disposable[];

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly server: Server,
  ) {
    this.inView = context.workspaceState.get<string>(KEPT);
    this.subscriptions = [
      this.changed,
      this.listed,
      server.onUpdate(({ sessionId, update }) => {
        if (update.type === 'state' && sessionId !== undefined) this.mark(sessionId, update.state === 'running');
      }),
      server.onDidChangeState((state) => {
        // Only for what runs and the title; whoever asks for the list is told what is wrong.
        if (state.kind === 'running')
          void this.list().catch((error: unknown) => this.server.output.debug(String(error)));
        else if (state.kind !== 'starting') this.forget();
      }),
    ];
  }

  /** The session in view; undefined: a new one that has no message yet. */
  get current(): string | undefined {
    return this.inView;
  }

  /** The title of a session, as last listed. */
  title(sessionId: string): string | undefined {
    return this.titles.get(sessionId);
  }

  /** Whether a turn runs in a session, as far as its updates told. */
  isRunning(sessionId: string): boolean {
    return this.running.has(sessionId);
  }

  /**
   * Return the session in view, made if there is none.
   *
   * @throws RequestError where none could be made, or the user was asked for a folder and named none.
   */
  ensure(): Promise<string> {
    if (this.inView !== undefined) return Promise.resolve(this.inView);
    this.making ??= this.make(this.folder).finally(() => (this.making = undefined));
    return this.making;
  }

  /** Make a session and show it. @throws RequestError as `ensure`. */
  create(folder?: vscode.Uri): Promise<string> {
    return this.make(folder);
  }

  /** Show an empty session, which is made with its first message; asks for the folder where there are several. */
  async begin(): Promise<void> {
    const folders = vscode.workspace.workspaceFolders ?? [];
    if (folders.length > 1) {
      const picked = await vscode.window.showWorkspaceFolderPick({
        placeHolder: 'The folder that the new session works in',
      });
      if (picked === undefined) return;
      this.folder = picked.uri;
    }
    this.show(undefined);
  }

  /** Show a session. */
  open(sessionId: string): void {
    this.show(sessionId);
  }

  /** List the sessions, newest first; with a query only those with all its words in the title or the user's messages. */
  async list(query?: string): Promise<SessionInfo[]> {
    const { sessions } = await this.server.request('selfloop/session/list', query ? { query } : {});
    for (const session of sessions) {
      this.titles.set(session.sessionId, session.title);
      if (session.state === 'running') this.running.add(session.sessionId);
      else this.running.delete(session.sessionId);
    }
    if (!query && this.inView !== undefined && !sessions.some((session) => session.sessionId === this.inView))
      this.show(undefined);
    this.listed.fire();
    return sessions;
  }

  /** Send the user's words to a session, by default the one in view, which is made if there is none. */
  async prompt(
    text: string,
    context: ContextItem[],
    delivery?: 'queue' | 'steer',
    sessionId?: string,
  ): Promise<SessionPromptResult> {
    const id = sessionId ?? (await this.ensure());
    const result = await this.server.request('selfloop/session/prompt', {
      sessionId: id,
      text,
      context,
      ...(delivery ? { delivery } : {}),
    });
    // The first message names the session.
    if (!this.titles.get(id)) void this.list().catch((error: unknown) => this.server.output.debug(String(error)));
    return result;
  }

  async cancel(sessionId: string): Promise<void> {
    await this.server.request('selfloop/session/cancel', { sessionId });
  }

  async rename(sessionId: string, title: string): Promise<void> {
    await this.server.request('selfloop/session/rename', { sessionId, title });
    this.titles.set(sessionId, title);
    this.listed.fire();
  }

  async delete(sessionId: string): Promise<void> {
    await this.server.request('selfloop/session/delete', { sessionId });
    this.titles.delete(sessionId);
    this.mark(sessionId, false);
    if (this.inView === sessionId) this.show(undefined);
    this.listed.fire();
  }

  private async make(folder: vscode.Uri | undefined): Promise<string> {
    const where = folder ?? (await this.whichFolder());
    const { sessionId } = await this.server.request(
      'selfloop/session/new',
      where === undefined ? {} : { workspaceFolder: where.toString() },
    );
    this.titles.set(sessionId, '');
    this.show(sessionId);
    return sessionId;
  }

  /** With several folders: the one of the file that the user is in, else the one that they name. */
  private async whichFolder(): Promise<vscode.Uri | undefined> {
    const folders = vscode.workspace.workspaceFolders ?? [];
    if (folders.length < 2) return undefined;
    const document = vscode.window.activeTextEditor?.document.uri;
    const folder = document === undefined ? undefined : vscode.workspace.getWorkspaceFolder(document);
    if (folder !== undefined) return folder.uri;
    const picked = await vscode.window.showWorkspaceFolderPick({ placeHolder: 'The folder that the session works in' });
    if (picked === undefined) throw new RequestError('No folder was chosen, so nothing was sent.', -32800, undefined);
    return picked.uri;
  }

  private show(sessionId: string | undefined): void {
    const isNew = sessionId === undefined;
    if (!isNew) this.folder = undefined;
    if (sessionId === this.inView && !isNew) return;
    this.inView = sessionId;
    void this.context.workspaceState.update(KEPT, sessionId);
    this.changed.fire(sessionId);
  }

  private mark(sessionId: string, running: boolean): void {
    if (this.running.has(sessionId) === running) return;
    if (running) this.running.add(sessionId);
    else this.running.delete(sessionId);
    this.listed.fire();
  }

  private forget(): void {
    this.running.clear();
    this.listed.fire();
  }

  dispose(): void {
    for (const one of this.subscriptions) one.dispose();
  }
}
