// Opening what a link in the panel leads to.
//
// Invariant: a web address opens only by VS Code's own confirmation; a file only if it lies in the workspace; everything
// else opens nothing.

import * as vscode from 'vscode';
import { readCode, readLink } from './panel/links';

/** Open a link of a model's text. @throws Error with one sentence where it leads nowhere. */
export async function openLink(target: string, preferred?: vscode.Uri): Promise<void> {
  const link = readLink(target) ?? readCode(target);
  if (link === undefined) throw new Error('This link leads to nothing that can be opened here, so nothing was opened.');
  if (link.kind === 'web') {
    await vscode.env.openExternal(vscode.Uri.parse(link.url, true));
    return;
  }
  const uri = await find(link.path, preferred);
  if (uri === undefined) throw new Error(`There is no file ${link.path} in this workspace, so nothing was opened.`);
  await openAt(
    uri,
    link.line === undefined ? undefined : link.line - 1,
    link.column === undefined ? 0 : link.column - 1,
  );
}

/** Open a file at a zero-based line. @throws Error with one sentence if it lies outside the workspace or is gone. */
export async function openLocation(text: string, line: number | undefined): Promise<void> {
  const uri = vscode.Uri.parse(text, true);
  if (vscode.workspace.getWorkspaceFolder(uri) === undefined) {
    throw new Error('This file does not lie in the workspace, so it was not opened.');
  }
  await openAt(uri, line, 0);
}

async function openAt(uri: vscode.Uri, line: number | undefined, column: number): Promise<void> {
  const kind = await kindOf(uri);
  if (kind === undefined)
    throw new Error(`${vscode.workspace.asRelativePath(uri)} does not exist any more, so nothing was opened.`);
  if ((kind & vscode.FileType.Directory) !== 0) {
    await vscode.commands.executeCommand('revealInExplorer', uri);
    return;
  }
  const options: vscode.TextDocumentShowOptions = {};
  if (line !== undefined) {
    const at = new vscode.Position(Math.max(0, line), Math.max(0, column));
    options.selection = new vscode.Range(at, at);
  }
  // Not showTextDocument: this one opens pictures and other files with the editor that fits them.
  await vscode.commands.executeCommand('vscode.open', uri, options);
}

/** Find a path in the folders of the workspace, that of the session first. */
async function find(path: string, preferred: vscode.Uri | undefined): Promise<vscode.Uri | undefined> {
  if (path.startsWith('/')) {
    const uri = vscode.Uri.file(path);
    return vscode.workspace.getWorkspaceFolder(uri) !== undefined && (await kindOf(uri)) !== undefined
      ? uri
      : undefined;
  }
  const folders = (vscode.workspace.workspaceFolders ?? []).map((folder) => folder.uri);
  for (const folder of [...(preferred ? [preferred] : []), ...folders]) {
    const uri = vscode.Uri.joinPath(folder, path);
    if (vscode.workspace.getWorkspaceFolder(uri) !== undefined && (await kindOf(uri)) !== undefined) return uri;
  }
  if (path.includes('/')) return undefined;
  const found = await vscode.workspace.findFiles(`**/${path.replace(/[[\]{}*?\\]/g, '?')}`, undefined, 2);
  return found.length === 1 ? found[0] : undefined;
}

async function kindOf(uri: vscode.Uri): Promise<vscode.FileType | undefined> {
  try {
    return (await vscode.workspace.fs.stat(uri)).type;
  } catch {
    return undefined; // It is not there, which the caller says.
  }
}
