// Where the user is: the hunk at the cursor, and which hunks are on the screen.

import * as vscode from 'vscode';
import { placeOf } from './diffs';
import { atLine, atProposalLine, lastLine, linesInProposal, type Item, type Place } from './review_model';

/** A line of a file, or of what a file would become by a gate. */
export interface ActivePlace extends Place {
  gateId?: string;
  editor: vscode.TextEditor;
}

/** Return where the cursor is; undefined where it is in no file and in no proposal. */
export function activePlace(): ActivePlace | undefined {
  const editor = vscode.window.activeTextEditor;
  if (editor === undefined) return undefined;
  const line = editor.selection.active.line;
  const place = placeOf(editor.document.uri);
  if (place !== undefined) return { uri: place.uri, line, gateId: place.gateId, editor };
  return editor.document.uri.scheme === 'file' ? { uri: editor.document.uri.toString(), line, editor } : undefined;
}

/** Return the hunk at the cursor, if its line is on the screen; of several the one at the pointer. */
export function atCursor(items: readonly Item[], pointed: Item | undefined): Item | undefined {
  const place = activePlace();
  if (place === undefined || !sees(place.editor, place.line, place.line)) return undefined;
  if (place.gateId !== undefined) return atProposalLine(items, place.gateId, place.uri, place.line);
  if (pointed !== undefined && atLine([pointed], place.uri, place.line) !== undefined) return pointed;
  return atLine(
    items.filter((item) => item.kind === 'text'),
    place.uri,
    place.line,
  );
}

/** Tell whether a hunk can be seen, in its file or in a diff. */
export function isInView(items: readonly Item[], item: Item): boolean {
  return vscode.window.visibleTextEditors.some((editor) => {
    const place = placeOf(editor.document.uri);
    if (place?.side === 'new' && place.gateId === item.gateId && place.uri === item.uri) {
      if (item.kind !== 'text') return true;
      const { start, end } = linesInProposal(items, item);
      return sees(editor, start, Math.max(start, end - 1));
    }
    const isFile = item.kind === 'text' && editor.document.uri.toString() === item.uri;
    return isFile && sees(editor, item.range.start.line, lastLine(item.range));
  });
}

function sees(editor: vscode.TextEditor, first: number, last: number): boolean {
  return editor.visibleRanges.some((range) => range.start.line <= last && first <= range.end.line);
}
