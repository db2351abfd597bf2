// The proposal's side of every diff: documents of the scheme `selfloop-proposal`, and the editors that show them.
//
//     left: the user's document as it is      right: selfloop-proposal:<path>?gate=…   all pending hunks in it
//
// Invariant: such a document is made from the last view of its gate and the user's text, holds nothing of its own, and
// cannot be edited.

import * as vscode from 'vscode';
import type { Gates } from './gates';
import type { GateFile, GateReadResult } from './protocol';
import { applyHunks, comparePaths, itemsOf, linesInProposal, ordered, sizeOf, type Item } from './review_model';
import { show } from './server';
import { commandText } from './trust_card';

export const PROPOSAL = 'selfloop-proposal';
/** `old`: what stands in for the user's side where there is no text of it. */
type Side = 'new' | 'old' | 'command';

/** Where a document of ours belongs. `uri` is the file that it would change. */
export interface ProposalPlace {
  gateId: string;
  uri: string;
  side: Side;
}

/** Return the document that shows a file of a gate as it would be. */
export function proposalUri(gateId: string, uri: string, side: Side = 'new'): vscode.Uri {
  return vscode.Uri.parse(uri).with({
    scheme: PROPOSAL,
    query: new URLSearchParams({ gate: gateId, side }).toString(),
    fragment: '',
  });
}

/** Return what a document of ours is about; undefined for every other. */
export function placeOf(uri: vscode.Uri): ProposalPlace | undefined {
  if (uri.scheme !== PROPOSAL) return undefined;
  const query = new URLSearchParams(uri.query);
  const gateId = query.get('gate');
  const side = query.get('side');
  if (gateId === null || (side !== 'new' && side !== 'old' && side !== 'command')) return undefined;
  return { gateId, uri: uri.with({ scheme: 'file', query: '' }).toString(), side };
}

export class Diffs implements vscode.TextDocumentContentProvider, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<vscode.Uri>();
  readonly onDidChange = this.changed.event;
  private readonly shown = new Map<string, GateReadResult | undefined>();
  /** What was in front before the window was loaded anew, until its gate is known again. */
  private reopening: { gateId: string; uri: string | undefined } | undefined;
  private readonly subscriptions: vscode.Disposable[];

  constructor(private readonly gates: Gates) {
    this.subscriptions = [
      vscode.workspace.registerTextDocumentContentProvider(PROPOSAL, this),
      gates.onDidChange(() => this.refresh()),
      vscode.workspace.onDidCloseTextDocument((document) => this.shown.delete(document.uri.toString())),
    ];
    void this.closeRestored().catch(show);
  }

  /** A diff comes back with its window before its documents can be had, and stays empty: so it is opened anew. */
  private async closeRestored(): Promise<void> {
    const tabs = vscode.window.tabGroups.all
      .flatMap((group) => group.tabs)
      .filter((tab) => this.gateOfTab(tab) !== undefined);
    const front = tabs.find((tab) => tab === vscode.window.tabGroups.activeTabGroup.activeTab);
    const gateId = this.gateOfTab(front);
    const single = front?.input instanceof vscode.TabInputTextDiff ? placeOf(front.input.modified)?.uri : undefined;
    if (gateId !== undefined) this.reopening = { gateId, uri: single };
    if (tabs.length > 0) await vscode.window.tabGroups.close(tabs, true);
  }

  private async reopen(): Promise<void> {
    const view = this.reopening && this.gates.view(this.reopening.gateId);
    if (this.reopening === undefined || view === undefined) return;
    const { uri } = this.reopening;
    this.reopening = undefined;
    if (view.gate.state === 'open')
      await (uri === undefined ? this.showAll(view) : this.showFile(view, uri, undefined, true));
  }

  // Documents

  async provideTextDocumentContent(uri: vscode.Uri): Promise<string> {
    const place = placeOf(uri);
    if (place === undefined) return '';
    if (place.side === 'command') {
      const gate = this.gates.info(place.gateId) ?? this.gates.view(place.gateId)?.gate;
      return gate === undefined ? 'This command was answered.\n' : commandText(gate);
    }
    const view = this.gates.view(place.gateId);
    this.shown.set(uri.toString(), view);
    const file = view?.files.find((one) => one.uri === place.uri);
    // A tab that comes back with its window is asked before the server runs; what it shows follows.
    if (view === undefined || file === undefined) return '';
    return place.side === 'old' ? modeLine(file, 'old') : proposed(view, file);
  }

  private refresh(): void {
    for (const [name, view] of this.shown) {
      const uri = vscode.Uri.parse(name);
      const place = placeOf(uri);
      if (place === undefined || this.gates.view(place.gateId) === view) continue;
      this.changed.fire(uri);
    }
    void this.closeDecided()
      .then(() => this.reopen())
      .catch(show);
  }

  /** Diffs in which nothing is left to decide go away by themselves; what the user opened otherwise stays. */
  private async closeDecided(): Promise<void> {
    const gone = vscode.window.tabGroups.all
      .flatMap((group) => group.tabs)
      .filter((tab) => {
        const gateId = this.gateOfTab(tab);
        return gateId !== undefined && this.gates.view(gateId) !== undefined && this.gates.info(gateId) === undefined;
      });
    if (gone.length > 0) await vscode.window.tabGroups.close(gone, true);
  }

  /** Return the gate that a tab of ours shows. */
  gateOfTab(tab: vscode.Tab | undefined): string | undefined {
    if (tab === undefined) return undefined;
    if (tab.input instanceof vscode.TabInputTextDiff) return placeOf(tab.input.modified)?.gateId;
    if (tab.input instanceof vscode.TabInputText) return placeOf(tab.input.uri)?.gateId;
    return diffsOf(tab.input)
      .map((uri) => placeOf(uri)?.gateId)
      .find((gateId) => gateId !== undefined);
  }

  /** Tell whether a tab is the multi-file diff of a proposal. */
  isWhole(tab: vscode.Tab | undefined): boolean {
    return tab !== undefined && diffsOf(tab.input).some((uri) => placeOf(uri) !== undefined);
  }

  // Editors

  /** Show everything that waits in a gate, in the multi-file diff editor. */
  async showAll(view: GateReadResult): Promise<void> {
    const files = view.files
      .filter((file) => file.hunks.some((hunk) => hunk.status === 'pending'))
      .sort((a, b) => comparePaths(a.uri, b.uri));
    const rows = await Promise.all(
      files.map(async (file) => {
        const { left, right } = await this.sides(view, file);
        return [vscode.Uri.parse(file.uri), left, right] as const;
      }),
    );
    // The editor counts the files itself.
    const title = `Proposal: ${view.gate.title.replace(/ \(\d+ files?\)$/, '')}`;
    await vscode.commands.executeCommand('vscode.changes', title, rows);
  }

  /** Show one file of a gate beside what it would become, at a hunk. */
  async showFile(view: GateReadResult, uri: string, item?: Item, keepFocus = false): Promise<void> {
    const file = view.files.find((one) => one.uri === uri);
    if (file === undefined) return;
    const { left, right } = await this.sides(view, file);
    const first = item ?? itemsOf(view).find((one) => one.uri === uri && one.status === 'pending');
    const line = first?.kind === 'text' ? linesInProposal(ordered([view]), first).start : 0;
    const options: vscode.TextDocumentShowOptions = {
      preserveFocus: keepFocus,
      preview: true,
      selection: new vscode.Range(line, 0, line, 0),
    };
    await vscode.commands.executeCommand('vscode.diff', left, right, titleOf(file, first), options);
  }

  /** Show a command that waits, all of it. */
  async showCommand(gateId: string): Promise<void> {
    const uri = vscode.Uri.from({
      scheme: PROPOSAL,
      path: '/Command.sh',
      query: new URLSearchParams({ gate: gateId, side: 'command' }).toString(),
    });
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(uri), { preview: true });
  }

  private async sides(view: GateReadResult, file: GateFile): Promise<{ left: vscode.Uri; right: vscode.Uri }> {
    const right = proposalUri(view.gate.gateId, file.uri);
    const kinds = itemsOf({ ...view, files: [file] }).map((item) => item.kind);
    const present = await existing(file);
    const isNoText = present === undefined || kinds.includes('binary') || kinds.every((kind) => kind === 'mode');
    const left = isNoText ? proposalUri(view.gate.gateId, file.uri, 'old') : present;
    return { left, right };
  }

  dispose(): void {
    for (const one of this.subscriptions) one.dispose();
    this.changed.dispose();
  }
}

/** Return the right sides of a multi-file diff editor; the class of its tabs is not public, its fields are there. */
function diffsOf(input: unknown): vscode.Uri[] {
  if (typeof input !== 'object' || input === null || !('textDiffs' in input) || !Array.isArray(input.textDiffs))
    return [];
  return input.textDiffs.flatMap((one: { modified?: unknown }) =>
    one.modified instanceof vscode.Uri ? [one.modified] : [],
  );
}

/** Return where a file is now, under its new name or its old one; undefined where there is none. */
async function existing(file: GateFile): Promise<vscode.Uri | undefined> {
  for (const name of [file.uri, file.oldUri]) {
    if (name === undefined) continue;
    const uri = vscode.Uri.parse(name);
    if (vscode.workspace.textDocuments.some((one) => one.uri.toString() === name)) return uri;
    try {
      await vscode.workspace.fs.stat(uri);
      return uri;
    } catch {
      // There is no file of this name, which is what was asked.
    }
  }
  return undefined;
}

/** Return a file with all of its pending hunks. */
async function proposed(view: GateReadResult, file: GateFile): Promise<string> {
  const items = itemsOf({ ...view, files: [file] }).filter((item) => item.status === 'pending');
  const other = items.find((item) => item.kind === 'binary');
  if (other !== undefined) return `${/^Binary file: .*$/m.exec(file.diff)?.[0] ?? 'Binary file'}\n`;
  const whole = items.find((item) => item.kind === 'whole');
  if (whole !== undefined) return whole.newText;
  if (items.length > 0 && items.every((item) => item.kind === 'mode')) return modeLine(file, 'new');
  const uri = await existing(file);
  if (uri === undefined) return '';
  const text = (await vscode.workspace.openTextDocument(uri)).getText();
  return applyHunks(
    text,
    items.filter((item) => item.kind === 'text'),
  );
}

/** A change of the mode alone has no text to show, so its numbers stand for it. */
function modeLine(file: GateFile, side: 'old' | 'new'): string {
  const mode = new RegExp(`^${side} mode (\\d+)$`, 'm').exec(file.diff)?.[1];
  return mode === undefined ? '' : `File mode ${mode}${mode === '100755' ? ' (executable)' : ''}\n`;
}

function titleOf(file: GateFile, item: Item | undefined): string {
  const name = vscode.Uri.parse(file.uri).path.split('/').at(-1) ?? '';
  const old = file.oldUri === undefined ? '' : (vscode.Uri.parse(file.oldUri).path.split('/').at(-1) ?? '');
  const what = { create: 'new file', delete: 'delete', rename: `renamed from ${old}`, modify: '' }[file.operation];
  const note = what || (item !== undefined && item.kind !== 'text' ? sizeOf(item) : 'proposal');
  return `${name} (${note})`;
}
