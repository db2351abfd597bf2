// After an approval, files that had no unsaved edits before are saved; others stay as they are.
//
// Invariant: only what was clean before our edit is saved, so the next edit of the same file waits until it is again.

import * as vscode from 'vscode';
import { show, type Server } from './server';

/** A save may run formatters of other extensions; a decision does not wait for slow ones. */
const MOST_WAIT_MS = 1000;

export class Saving {
  private readonly running = new Map<string, Promise<void>>();

  constructor(server: Server) {
    server.hooks.applied = (clean) => {
      if (vscode.workspace.getConfiguration('selfloop').get('saveAfterApproval', true))
        for (const uri of clean) this.save(uri);
    };
  }

  private save(uri: vscode.Uri): void {
    const name = uri.toString();
    const document = vscode.workspace.textDocuments.find((one) => one.uri.toString() === name);
    if (document === undefined || !document.isDirty) return;
    const work = saved(document)
      .catch(show)
      .finally(() => {
        if (this.running.get(name) === work) this.running.delete(name);
      });
    this.running.set(name, work);
  }

  /** Wait until what is being saved of some files is on the disk, at most a second. */
  async settled(uris: readonly string[]): Promise<void> {
    const work = uris.flatMap((uri) => this.running.get(uri) ?? []);
    if (work.length === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const enough = new Promise<void>((resolve) => (timer = setTimeout(resolve, MOST_WAIT_MS)));
    await Promise.race([Promise.all(work), enough]);
    clearTimeout(timer);
  }
}

async function saved(document: vscode.TextDocument): Promise<void> {
  if (await document.save()) return;
  throw new Error(
    `${vscode.workspace.asRelativePath(document.uri)} was changed but could not be saved; save it yourself.`,
  );
}
