// What a running turn has changed so far, file by file, beside the user's own text: to look at, never to edit.
//
// Invariant: a document of the scheme `selfloop-changes` is made of the user's text and the server's diff; where the
// two no longer fit, it shows the diff itself.

import { applyPatch } from 'diff';
import * as vscode from 'vscode';
import type { Server } from './server';

const SCHEME = 'selfloop-changes';

export class LiveChanges implements vscode.TextDocumentContentProvider, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<vscode.Uri>();
  readonly onDidChange = this.changed.event;
  /** The documents that were opened, with the session and the file that each is about. */
  private readonly open = new Map<string, { uri: vscode.Uri; sessionId: string }>();
  private readonly subscriptions: vscode.Disposable[];

  constructor(private readonly server: Server) {
    this.subscriptions = [
      this.changed,
      vscode.workspace.registerTextDocumentContentProvider(SCHEME, this),
      server.onUpdate(({ update, sessionId }) => {
        if (update.type !== 'changes') return;
        for (const one of this.open.values()) if (one.sessionId === sessionId) this.changed.fire(one.uri);
      }),
      vscode.workspace.onDidCloseTextDocument((document) => this.open.delete(document.uri.toString())),
    ];
  }

  /** Show a file's changes so far in a diff editor. */
  async show(sessionId: string, file: vscode.Uri): Promise<void> {
    const uri = file.with({
      scheme: SCHEME,
      query: new URLSearchParams({ session: sessionId, file: file.toString() }).toString(),
    });
    this.open.set(uri.toString(), { uri, sessionId });
    const isThere = await exists(file);
    const left = isThere ? file : uri.with({ query: '' });
    const name = vscode.workspace.asRelativePath(file);
    await vscode.commands.executeCommand('vscode.diff', left, uri, `${name} (changes so far)`, { preview: true });
  }

  async provideTextDocumentContent(uri: vscode.Uri): Promise<string> {
    const query = new URLSearchParams(uri.query);
    const sessionId = query.get('session');
    const file = query.get('file');
    if (sessionId === null || file === null) return ''; // The left side of a file that is new.
    const { files } = await this.server.request('selfloop/changes/read', { sessionId });
    const target = vscode.Uri.parse(file);
    const change = files.find((one) => vscode.Uri.parse(one.uri).toString() === target.toString());
    const text = await textOf(target);
    if (change === undefined) return text;
    if (change.operation === 'delete') return '';
    const patched = applyPatch(text, change.diff, { autoConvertLineEndings: true, fuzzFactor: 0 });
    return patched === false ? change.diff : patched;
  }

  dispose(): void {
    for (const one of this.subscriptions) one.dispose();
  }
}

async function exists(uri: vscode.Uri): Promise<boolean> {
  try {
    await vscode.workspace.fs.stat(uri);
    return true;
  } catch {
    return false; // A file that the turn has made: its left side is empty.
  }
}

async function textOf(uri: vscode.Uri): Promise<string> {
  return (await exists(uri)) ? (await vscode.workspace.openTextDocument(uri)).getText() : '';
}
