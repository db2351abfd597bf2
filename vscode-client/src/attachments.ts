// What goes with a message: files, selections and problems of the editor; and telling the server what the user sees.

import * as vscode from 'vscode';
import type { Attachment, FileChoice } from './panel/messages';
import { DID_FOCUS, type ContextDiagnostic, type FocusParams, type Range } from './protocol';
import type { Server } from './server';

const FOCUS_SETTLES_MS = 120;
const MOST_FILES = 20_000;
const FILES_LAST_MS = 10_000;
/** Besides what the user's settings exclude. */
const NEVER = '{**/.evo/**,**/.git/**,**/node_modules/**,**/.venv/**,**/__pycache__/**}';
const MOST_OFFERED_FILES = 10;
const MOST_PROBLEMS = 50;

/** Follows the active editor. */
export class Attachments implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<Attachment[]>();
  /** What the composer may offer with one click: the open file, the selection in it, its problems. */
  readonly onDidChangeOffer = this.changed.event;
  private timer: NodeJS.Timeout | undefined;
  private files: { at: number; found: Promise<vscode.Uri[]> } | undefined;
  private readonly subscriptions: vscode.Disposable[];

  constructor(private readonly server: Server) {
    const soon = (): void => this.soon();
    this.subscriptions = [
      this.changed,
      vscode.window.onDidChangeActiveTextEditor(soon),
      vscode.window.onDidChangeTextEditorSelection(soon),
      vscode.languages.onDidChangeDiagnostics(({ uris }) => {
        const uri = vscode.window.activeTextEditor?.document.uri.toString();
        if (uri !== undefined && uris.some((one) => one.toString() === uri)) soon();
      }),
      server.onDidChangeState(soon),
    ];
  }

  /** What can be attached of the editor as it is now. */
  offer(): Attachment[] {
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined || editor.document.uri.scheme !== 'file') return [];
    return [selectionOf(editor) ?? fileOf(editor.document.uri), problemsOf(editor)].filter((one) => one !== undefined);
  }

  /** The attachment that the user names. @throws Error with one sentence where there is none. */
  take(what: Attachment['kind'], uri?: vscode.Uri): Attachment {
    if (what === 'file' && uri !== undefined) return fileOf(uri);
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined || editor.document.uri.scheme !== 'file')
      throw new Error('No file is open in the editor, so nothing was added.');
    const found =
      what === 'file' ? fileOf(editor.document.uri) : what === 'selection' ? selectionOf(editor) : problemsOf(editor);
    if (found !== undefined) return found;
    throw new Error(
      what === 'selection'
        ? 'Nothing is selected in the editor, so nothing was added.'
        : 'The open file has no problems, so nothing was added.',
    );
  }

  /** The files whose path fits what was typed, the best first. */
  async find(query: string): Promise<FileChoice[]> {
    if (this.files === undefined || Date.now() - this.files.at > FILES_LAST_MS) {
      this.files = { at: Date.now(), found: Promise.resolve(vscode.workspace.findFiles('**/*', NEVER, MOST_FILES)) };
    }
    const uris = await this.files.found;
    const open = new Set(
      vscode.window.tabGroups.all.flatMap((group) =>
        group.tabs.flatMap((tab) => (tab.input instanceof vscode.TabInputText ? [tab.input.uri.toString()] : [])),
      ),
    );
    return uris
      .map((uri) => {
        const path = vscode.workspace.asRelativePath(uri);
        return { uri, path, score: score(path, query) + (open.has(uri.toString()) ? 20 : 0) };
      })
      .filter((one) => one.score > 0)
      .sort((a, b) => b.score - a.score || a.path.length - b.path.length || (a.path < b.path ? -1 : 1))
      .slice(0, MOST_OFFERED_FILES)
      .map(({ uri, path }) => {
        const slash = path.lastIndexOf('/');
        return { uri: uri.toString(), name: path.slice(slash + 1), folder: slash > 0 ? path.slice(0, slash) : '' };
      });
  }

  private soon(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.changed.fire(this.offer());
      this.tell();
    }, FOCUS_SETTLES_MS);
  }

  /** Tell the server what the user sees. */
  private tell(): void {
    const editor = vscode.window.activeTextEditor;
    if (this.server.state.kind !== 'running') return;
    if (editor !== undefined && editor.document.uri.scheme !== 'file') return; // An output or a diff is no place to work at.
    const params: FocusParams =
      editor === undefined
        ? {}
        : { textDocument: { uri: editor.document.uri.toString() }, selections: editor.selections.map(rangeOf) };
    this.server.notify(DID_FOCUS, params);
  }

  dispose(): void {
    clearTimeout(this.timer);
    for (const one of this.subscriptions) one.dispose();
  }
}

function fileOf(uri: vscode.Uri): Attachment {
  const path = vscode.workspace.asRelativePath(uri);
  return {
    id: uri.toString(),
    kind: 'file',
    label: path.slice(path.lastIndexOf('/') + 1),
    detail: path,
    item: { uri: uri.toString() },
  };
}

function selectionOf(editor: vscode.TextEditor): Attachment | undefined {
  const { document, selection } = editor;
  if (selection.isEmpty) return undefined;
  const { label, detail } = fileOf(document.uri);
  const first = selection.start.line + 1;
  // A selection that ends before the first character of a line does not hold that line.
  const last =
    selection.end.character === 0 && selection.end.line > selection.start.line
      ? selection.end.line
      : selection.end.line + 1;
  const lines = first === last ? `${first}` : `${first}–${last}`;
  const uri = document.uri.toString();
  return {
    id: `${uri}#${lines}`,
    kind: 'selection',
    label: `${label}:${lines}`,
    detail: `lines ${lines} of ${detail}`,
    item: { uri, range: rangeOf(selection), text: document.getText(selection) },
  };
}

function problemsOf(editor: vscode.TextEditor): Attachment | undefined {
  const { document } = editor;
  const found = vscode.languages
    .getDiagnostics(document.uri)
    .filter((one) => one.severity <= vscode.DiagnosticSeverity.Warning);
  if (found.length === 0) return undefined;
  const uri = document.uri.toString();
  const { label, detail } = fileOf(document.uri);
  const words = found.length === 1 ? '1 problem' : `${found.length} problems`;
  return {
    id: `${uri}#problems`,
    kind: 'problems',
    label: `${words} in ${label}`,
    detail: `${words} of ${detail}`,
    item: { uri, diagnostics: found.slice(0, MOST_PROBLEMS).map(diagnosticOf) },
  };
}

function diagnosticOf(one: vscode.Diagnostic): ContextDiagnostic {
  const code = typeof one.code === 'object' ? one.code.value : one.code;
  return {
    message: one.message,
    range: rangeOf(one.range),
    severity: one.severity + 1,
    ...(one.source === undefined ? {} : { source: one.source }),
    ...(code === undefined ? {} : { code }),
  };
}

function rangeOf(range: vscode.Range): Range {
  const { start, end } = range;
  return { start: { line: start.line, character: start.character }, end: { line: end.line, character: end.character } };
}

/** How well a path fits what was typed: 0 is not at all. The letters must come in order; the name counts most. */
export function score(path: string, query: string): number {
  if (query === '') return 1;
  const wanted = query.toLowerCase();
  const whole = path.toLowerCase();
  const name = whole.slice(whole.lastIndexOf('/') + 1);
  if (name === wanted) return 1000;
  if (name.startsWith(wanted)) return 800 - name.length / 100;
  if (name.includes(wanted)) return 600 - name.length / 100;
  if (whole.includes(wanted)) return 400 - whole.length / 100;
  let at = -1;
  let gaps = 0;
  for (const letter of wanted) {
    const next = whole.indexOf(letter, at + 1);
    if (next < 0) return 0;
    gaps += next - at - 1;
    at = next;
  }
  return Math.max(1, 200 - gaps);
}
