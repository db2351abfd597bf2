// Pending hunks in the files that they would change: the old lines tinted, a mark in the gutter and the overview ruler,
// their size behind the first line, and the new text on hover.
//
// Invariant: a decoration only mirrors the gates; its links carry the digest of the hunk that they are about. What the
// user types moves a decoration by itself until the gate is read again.

import * as vscode from 'vscode';
import type { Gates } from './gates';
import type { GateReadResult } from './protocol';
import { firstLine, lastLine, ordered, sizeOf, type Item } from './review_model';
import { hunkCard } from './trust_card';

/** The only commands that a link of ours may run. */
const LINKS = ['selfloop.gate.resolve', 'selfloop.review.diff', 'selfloop.ask'];
const MOST_PREVIEW = 90;

type Kind = 'pending' | 'added' | 'stale' | 'current' | 'first' | 'staleFirst';

export class Decorations implements vscode.Disposable {
  private readonly types: Record<Kind, vscode.TextEditorDecorationType>;
  private readonly drawn = new WeakMap<vscode.TextEditor, readonly unknown[]>();
  private readonly subscriptions: vscode.Disposable[];

  constructor(
    context: vscode.ExtensionContext,
    private readonly gates: Gates,
    private readonly pointer: { readonly current: Item | undefined; readonly onDidMove: vscode.Event<void> },
  ) {
    const icon = (name: string): vscode.Uri => vscode.Uri.joinPath(context.extensionUri, 'media', `${name}.svg`);
    const color = (name: string): vscode.ThemeColor => new vscode.ThemeColor(`selfloop.${name}`);
    const line = (options: vscode.DecorationRenderOptions): vscode.TextEditorDecorationType =>
      vscode.window.createTextEditorDecorationType({
        isWholeLine: true,
        overviewRulerLane: vscode.OverviewRulerLane.Left,
        rangeBehavior: vscode.DecorationRangeBehavior.ClosedClosed,
        ...options,
      });
    const edge = { borderStyle: 'solid', borderColor: color('pendingBorder') };
    this.types = {
      pending: line({
        ...edge,
        backgroundColor: color('pendingBackground'),
        overviewRulerColor: color('pendingBorder'),
        borderWidth: '0 0 0 2px',
      }),
      // What only adds has no old lines: an edge above the line that it goes before.
      added: line({ ...edge, overviewRulerColor: color('pendingBorder'), borderWidth: '1px 0 0 2px' }),
      stale: line({
        ...edge,
        backgroundColor: color('staleBackground'),
        borderColor: new vscode.ThemeColor('descriptionForeground'),
        borderWidth: '0 0 0 2px',
      }),
      current: line({ ...edge, borderWidth: '0 0 0 4px' }),
      first: vscode.window.createTextEditorDecorationType({
        light: { gutterIconPath: icon('pending-light') },
        dark: { gutterIconPath: icon('pending-dark') },
        gutterIconSize: 'contain',
        rangeBehavior: vscode.DecorationRangeBehavior.ClosedClosed,
      }),
      staleFirst: vscode.window.createTextEditorDecorationType({
        rangeBehavior: vscode.DecorationRangeBehavior.ClosedClosed,
      }),
    };
    this.subscriptions = [
      ...Object.values(this.types),
      gates.onDidChange(() => this.draw()),
      pointer.onDidMove(() => this.draw()),
      vscode.window.onDidChangeVisibleTextEditors(() => this.draw()),
      vscode.window.onDidChangeActiveColorTheme(() => this.draw(true)),
    ];
    this.draw();
  }

  private draw(anew = false): void {
    const views = this.gates.openViews;
    for (const editor of vscode.window.visibleTextEditors) {
      // An editor within a diff is in no column: there the diff itself says it all.
      if (editor.document.uri.scheme !== 'file' || editor.viewColumn === undefined) continue;
      const uri = editor.document.uri.toString();
      const here = views.filter((view) => view.files.some((file) => file.uri === uri || file.oldUri === uri));
      // Drawn again only for news: between two words of the server's the editor moves what stands there by itself.
      const current = this.pointer.current?.uri === uri ? this.pointer.current.hunkId : undefined;
      const seen = [current, ...here];
      const before = this.drawn.get(editor);
      if (!anew && before !== undefined && before.length === seen.length && seen.every((one, at) => one === before[at]))
        continue;
      if (before === undefined && here.length === 0) continue;
      this.drawn.set(editor, seen);
      this.drawIn(editor, here, current);
    }
  }

  private drawIn(editor: vscode.TextEditor, views: readonly GateReadResult[], current: string | undefined): void {
    const uri = editor.document.uri.toString();
    const rows: Record<Kind, vscode.DecorationOptions[]> = {
      pending: [],
      added: [],
      stale: [],
      current: [],
      first: [],
      staleFirst: [],
    };
    for (const item of ordered(views, ['pending', 'stale'])) {
      if (item.uri !== uri && item.oldUri !== uri) continue;
      const kind = item.status === 'stale' ? 'stale' : item.kind === 'text' && item.removed === 0 ? 'added' : 'pending';
      const range = linesOf(editor.document, item);
      rows[kind].push({ range, hoverMessage: hoverOf(editor.document, item) });
      rows[kind === 'stale' ? 'staleFirst' : 'first'].push({
        range: editor.document.lineAt(range.start.line).range,
        renderOptions: { after: afterOf(item) },
      });
      if (item.hunkId === current) rows.current.push({ range });
    }
    for (const kind of Object.keys(rows) as Kind[]) editor.setDecorations(this.types[kind], rows[kind]);
  }

  dispose(): void {
    for (const one of this.subscriptions) one.dispose();
  }
}

/** Return the lines that a hunk stands on; what concerns the whole file stands on its first line. */
function linesOf(document: vscode.TextDocument, item: Item): vscode.Range {
  const last = Math.max(0, document.lineCount - 1);
  const isText = item.kind === 'text';
  const start = isText ? Math.min(item.range.start.line, last) : 0;
  const end = isText ? Math.min(Math.max(start, lastLine(item.range)), last) : 0;
  return new vscode.Range(start, 0, end, document.lineAt(end).text.length);
}

function afterOf(item: Item): vscode.ThemableDecorationAttachmentRenderOptions {
  return {
    contentText: behind(item),
    color: new vscode.ThemeColor('editorCodeLens.foreground'),
    margin: '0 0 0 3ch',
    fontStyle: 'italic',
  };
}

/** A decoration can show one line: the size, and the new text where that is one line for one. */
function behind(item: Item): string {
  if (item.status === 'stale') return 'out of date';
  if (item.operation === 'delete') return 'delete this file';
  if (item.operation === 'create') return 'create this file';
  const isOne = item.kind === 'text' && item.added === 1 && item.removed <= 1;
  return isOne ? `${sizeOf(item)}\u2002${firstLine(item.newText, MOST_PREVIEW)}` : sizeOf(item);
}

function hoverOf(document: vscode.TextDocument, item: Item): vscode.MarkdownString {
  const link = (label: string, command: string, argument: object): string =>
    `[${label}](command:${command}?${encodeURIComponent(JSON.stringify([argument]))})`;
  const hunks = [{ hunkId: item.hunkId, digest: item.digest }];
  const decide = (label: string, optionId: string): string =>
    link(label, 'selfloop.gate.resolve', { gateId: item.gateId, optionId, hunks });
  const links =
    item.status === 'stale'
      ? [
          link('$(refresh) Ask Again', 'selfloop.ask', { intent: 'again', gateId: item.gateId, hunkId: item.hunkId }),
          decide('$(close) Reject', 'reject'),
        ]
      : [
          decide('$(check) Approve', 'approve'),
          decide('$(close) Reject', 'reject'),
          link('$(diff) Diff', 'selfloop.review.diff', { gateId: item.gateId, hunkId: item.hunkId }),
        ];
  const text = new vscode.MarkdownString(
    `${hunkCard(item, document.languageId)}\n\n${links.join('\u2002·\u2002')}`,
    true,
  );
  text.isTrusted = { enabledCommands: LINKS };
  return text;
}
