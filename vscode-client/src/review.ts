// The one review flow: a pointer through all pending hunks of all proposals, and every way to decide at it.
//
// Invariants: a key decides only a hunk that the user has in view; where it is not, the first press shows it. One
// decision runs at a time, and a press during it is dropped, so that a held key never approves what was not seen.

import * as vscode from 'vscode';
import { Decorations } from './decorations';
import { Diffs, placeOf } from './diffs';
import type { AppliedChange, Gates } from './gates';
import type { GateResolveResult, HunkRef } from './protocol';
import { atLine, byGate, lastLine, neighbour, ordered, plural, type Item, type Place } from './review_model';
import { activePlace, atCursor, isInView } from './review_place';
import { sentence, show, type Server } from './server';
import type { Sessions } from './sessions';

const QUIET_MS = 5000;
type Decision = 'approve' | 'reject';

/** What a key binding or a link says with a command of ours. */
interface Asked {
  /** The side bar or the panel has the focus, and keeps it. */
  keepFocus?: boolean;
  gateId?: string;
  hunkId?: string;
}

export class Review implements vscode.Disposable {
  private readonly moved = new vscode.EventEmitter<void>();
  /** The pointer is at another hunk. */
  readonly onDidMove = this.moved.event;
  readonly diffs: Diffs;
  private at: { gateId: string; hunkId: string } | undefined;
  private busy = false;
  /** The user asked for diffs, and goes on in them until another editor is in front. */
  private prefersDiffs = false;
  private readonly contexts = new Map<string, boolean>();
  private readonly subscriptions: vscode.Disposable[];

  constructor(
    context: vscode.ExtensionContext,
    private readonly server: Server,
    private readonly gates: Gates,
    private readonly sessions: Sessions,
  ) {
    this.diffs = new Diffs(gates);
    const command = (name: string, run: (argument: unknown) => Promise<void>): vscode.Disposable =>
      vscode.commands.registerCommand(`selfloop.review.${name}`, (argument: unknown) => run(argument).catch(show));
    this.subscriptions = [
      this.diffs,
      new Decorations(context, gates, this),
      command('next', (argument) => this.move(1, asked(argument))),
      command('previous', (argument) => this.move(-1, asked(argument))),
      command('approve', (argument) => this.decide('approve', asked(argument))),
      command('reject', (argument) => this.decide('reject', asked(argument))),
      command('approveFile', (argument) => this.decideFile('approve', argument)),
      command('rejectFile', (argument) => this.decideFile('reject', argument)),
      command('approveAll', () => this.decideProposal('approve')),
      command('rejectAll', () => this.decideProposal('reject')),
      command('diff', (argument) => this.diff(asked(argument))),
      command('open', (argument) => this.openAny(asked(argument).gateId)),
      command('undo', () => this.undo()),
      command('again', () => this.again()),
      gates.onDidChange(() => this.refresh()),
      sessions.onDidChangeCurrent(() => this.refresh()),
      vscode.window.onDidChangeActiveTextEditor(() => this.refresh()),
      vscode.window.tabGroups.onDidChangeTabs(() => this.refresh()),
      vscode.window.tabGroups.onDidChangeTabGroups(() => this.refresh()),
    ];
    const earlier = server.hooks.command;
    server.hooks.command = async (name, argument) =>
      (await earlier?.(name, argument)) === true || (await this.serverCommand(name, argument));
    this.refresh();
  }

  // What waits

  /** Every pending hunk, in the order in which the pointer goes. */
  get items(): Item[] {
    return ordered(this.gates.openViews);
  }

  /** The hunk at the pointer. */
  get current(): Item | undefined {
    const { at } = this;
    return at && this.items.find((item) => item.gateId === at.gateId && item.hunkId === at.hunkId);
  }

  private refresh(): void {
    const items = this.items;
    const here = activePlace();
    const tab = vscode.window.tabGroups.activeTabGroup.activeTab;
    this.setContext('reviewing', items.length > 0);
    this.setContext(
      'fileInReview',
      here !== undefined && items.some((item) => item.uri === here.uri || item.oldUri === here.uri),
    );
    this.setContext('proposalInView', this.diffs.isWhole(tab));
    this.setContext('canUndo', this.undoable() !== undefined);
  }

  private setContext(name: string, value: boolean): void {
    if (this.contexts.get(name) === value) return;
    this.contexts.set(name, value);
    void vscode.commands.executeCommand('setContext', `selfloop.${name}`, value);
  }

  // Moving

  private async move(step: 1 | -1, { keepFocus = false }: Asked): Promise<void> {
    const items = this.items;
    const wanted = this.beside(items, step);
    if (wanted === undefined) return this.nothingLeft();
    await this.reveal(wanted, keepFocus);
  }

  /** From the pointer while the cursor is at it, else from the cursor: as going to the next search result does. */
  private beside(items: readonly Item[], step: 1 | -1): Item | undefined {
    const place = activePlace();
    const pointed = this.current;
    const index =
      pointed === undefined
        ? -1
        : items.findIndex((item) => item.hunkId === pointed.hunkId && item.gateId === pointed.gateId);
    const isAt =
      pointed !== undefined &&
      (place === undefined ||
        atCursor(items, this.current)?.hunkId === pointed.hunkId ||
        (place.uri !== pointed.uri && !items.some((item) => item.uri === place.uri)));
    if (isAt) return items[(index + step + items.length) % items.length];
    if (place?.gateId !== undefined) {
      const inFile = items.find((item) => item.uri === place.uri && item.gateId === place.gateId);
      const here = atCursor(items, this.current) ?? inFile;
      if (here !== undefined) return items[(items.indexOf(here) + step + items.length) % items.length];
    }
    return neighbour(items, place, step);
  }

  /** Show a hunk where it is, and put the pointer there. */
  private async reveal(item: Item, keepFocus = false): Promise<void> {
    this.pointAt(item);
    const view = this.gates.view(item.gateId);
    if (view === undefined) return;
    const tab = vscode.window.tabGroups.activeTabGroup.activeTab;
    this.prefersDiffs &&= this.diffs.gateOfTab(tab) !== undefined;
    if (this.prefersDiffs || item.kind !== 'text' || item.operation === 'rename')
      return this.diffs.showFile(view, item.uri, item, keepFocus);
    try {
      const uri = vscode.Uri.parse(item.uri);
      const visible = vscode.window.visibleTextEditors.find(
        (one) => one.document.uri.toString() === item.uri && one.viewColumn !== undefined,
      );
      const document = visible?.document ?? (await vscode.workspace.openTextDocument(uri));
      const line = Math.min(item.range.start.line, document.lineCount - 1);
      const editor = await vscode.window.showTextDocument(document, {
        preserveFocus: keepFocus,
        preview: true,
        selection: new vscode.Range(line, 0, line, 0),
        ...(visible?.viewColumn === undefined ? {} : { viewColumn: visible.viewColumn }),
      });
      const range = new vscode.Range(line, 0, Math.min(lastLine(item.range), document.lineCount - 1), 0);
      editor.revealRange(range, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
    } catch (error) {
      this.server.output.debug(`${item.uri} cannot be shown as text (${sentence(error)}), so its diff is shown.`);
      await this.diffs.showFile(view, item.uri, item, keepFocus);
    }
  }

  private pointAt(item: Item | undefined): void {
    this.at = item && { gateId: item.gateId, hunkId: item.hunkId };
    this.moved.fire();
  }

  private nothingLeft(): void {
    this.pointAt(undefined);
    const staleCount = ordered(this.gates.openViews, ['stale']).length;
    const stale =
      staleCount > 0 ? ` ${plural(staleCount, 'change is', 'changes are')} out of date: ask again, or reject.` : '';
    quiet(`$(check-all) Nothing is left to review.${stale}`);
  }

  // Deciding

  private async decide(option: Decision, argument: Asked): Promise<void> {
    await this.alone(async () => {
      const items = this.items;
      if (items.length === 0) return this.nothingLeft();
      const target = this.target(items, argument);
      if (target === undefined) {
        const wanted = this.current ?? neighbour(items, activePlace(), 1);
        if (wanted !== undefined) await this.reveal(wanted, argument.keepFocus);
        return;
      }
      await this.decideItems(option, [target], argument.keepFocus, true);
    });
  }

  /** The hunk that a key is about: what is at the cursor, else what is at the pointer; both only while in view. */
  private target(items: readonly Item[], argument: Asked): Item | undefined {
    if (argument.hunkId !== undefined)
      return items.find((item) => item.hunkId === argument.hunkId && item.gateId === argument.gateId);
    const here = atCursor(items, this.current);
    if (here !== undefined) return here;
    const pointed = this.current;
    return pointed !== undefined && isInView(this.items, pointed) ? pointed : undefined;
  }

  /** Decide some hunks of any gates, and put the pointer at what comes after them. Returns whether all were decided. */
  async decideItems(option: Decision, chosen: readonly Item[], keepFocus = false, goOn = false): Promise<boolean> {
    const before = this.items;
    const ids = new Set(chosen.map(keyOf));
    const last = before.findLastIndex((item) => ids.has(keyOf(item)));
    const rest = [...before.slice(last + 1), ...before.slice(0, Math.max(0, last))].filter(
      (item) => !ids.has(keyOf(item)),
    );
    for (const [gateId, items] of byGate(chosen)) {
      const result = await this.gates.resolve(
        gateId,
        option,
        items.map(({ hunkId, digest }): HunkRef => ({ hunkId, digest })),
      );
      if (result === undefined || result.conflicts.length > 0) return false;
    }
    const waiting = new Map(this.items.map((item) => [keyOf(item), item]));
    const next = rest.map((item) => waiting.get(keyOf(item))).find((item) => item !== undefined) ?? this.items[0];
    if (next === undefined) this.nothingLeft();
    else if (goOn) await this.reveal(next, keepFocus);
    else this.pointAt(next);
    return true;
  }

  private async decideFile(option: Decision, argument: unknown): Promise<void> {
    await this.alone(async () => {
      const uri = this.fileOf(argument);
      const items = this.items.filter((item) => item.uri === uri || item.oldUri === uri);
      if (items.length === 0) return quiet('$(info) Nothing waits in this file.');
      await this.decideItems(option, items, asked(argument).keepFocus, true);
    });
  }

  /** The file that was clicked, or is in front; else the pointer's. */
  private fileOf(argument: unknown): string | undefined {
    const given = argument instanceof vscode.Uri ? argument : undefined;
    if (given !== undefined) return placeOf(given)?.uri ?? given.toString();
    const here = activePlace()?.uri;
    const isWaiting = this.items.some((item) => item.uri === here || item.oldUri === here);
    const pointed = this.current;
    return isWaiting ? here : pointed !== undefined && isInView(this.items, pointed) ? pointed.uri : undefined;
  }

  private async decideProposal(option: Decision): Promise<void> {
    await this.alone(async () => {
      const gateId = this.diffs.gateOfTab(vscode.window.tabGroups.activeTabGroup.activeTab) ?? this.current?.gateId;
      if (gateId === undefined) return quiet('$(info) No proposal is in view.');
      const result = await this.gates.resolve(gateId, option);
      if (result !== undefined && result.conflicts.length === 0 && this.items.length === 0) this.nothingLeft();
    });
  }

  private async alone(work: () => Promise<void>): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      await work();
    } finally {
      this.busy = false;
    }
  }

  // Showing

  private async diff(argument: Asked): Promise<void> {
    const items = this.items;
    const item = this.target(items, argument) ?? this.current ?? neighbour(items, activePlace(), 1);
    const view = item && this.gates.view(item.gateId);
    if (item === undefined || view === undefined) return this.nothingLeft();
    this.pointAt(item);
    this.prefersDiffs = true;
    await this.diffs.showFile(view, item.uri, item, argument.keepFocus);
  }

  /** Show a whole proposal in the multi-file diff editor, or one file, or one hunk in its file. */
  async open(gateId: string, uri?: string, hunkId?: string): Promise<void> {
    try {
      const view = this.gates.view(gateId) ?? (await this.gates.read(gateId));
      if (view.gate.subject['type'] === 'command') return await this.diffs.showCommand(gateId);
      const waiting = ordered([view], ['pending', 'stale']);
      const item = hunkId === undefined ? undefined : waiting.find((one) => one.hunkId === hunkId);
      if (item !== undefined) return await this.reveal(item);
      if (!waiting.some((one) => one.status === 'pending')) {
        quiet(
          waiting.length > 0
            ? '$(history) What is left of this proposal is out of date: ask again, or reject.'
            : '$(info) This proposal is decided; nothing of it waits.',
        );
        const stale = waiting[0];
        return stale === undefined ? undefined : await this.reveal(stale);
      }
      const name = uri === undefined ? undefined : vscode.Uri.parse(uri).toString();
      const files = new Set(waiting.flatMap((one) => (one.status === 'pending' ? [one.uri] : [])));
      const single = name ?? (files.size === 1 ? [...files][0] : undefined);
      this.pointAt(waiting.find((one) => one.status === 'pending' && (single === undefined || one.uri === single)));
      this.prefersDiffs = true;
      await (single === undefined ? this.diffs.showAll(view) : this.diffs.showFile(view, single));
    } catch (error) {
      show(error);
    }
  }

  private async openAny(gateId: string | undefined): Promise<void> {
    const wanted = gateId ?? this.current?.gateId;
    if (wanted !== undefined) return this.open(wanted);
    const gates = this.gates.open.filter((gate) => gate.subject['type'] === 'changes');
    const mine = gates.filter((gate) => gate.sessionId === this.sessions.current);
    const [only] = mine.length === 1 ? mine : gates;
    if (only === undefined) return this.nothingLeft();
    if (gates.length === 1 || mine.length === 1) return this.open(only.gateId);
    const picked = await vscode.window.showQuickPick(
      gates.map((gate) => ({ label: gate.title, description: gate.description ?? '', gateId: gate.gateId })),
      { title: 'Which proposal?', placeHolder: 'Several proposals wait for you' },
    );
    if (picked !== undefined) await this.open(picked.gateId);
  }

  // Taking back, asking again

  private undoable(): AppliedChange | undefined {
    const { current } = this.sessions;
    return (
      this.gates.applied.findLast((change) => current === undefined || change.sessionId === current) ??
      this.gates.applied.at(-1)
    );
  }

  private async undo(): Promise<void> {
    const change = this.undoable();
    if (change === undefined) return quiet('$(info) There is no approved change to take back.');
    await this.gates.undo(change.gateId);
  }

  private async again(): Promise<void> {
    const stale = ordered(this.gates.openViews, ['stale']);
    const place = activePlace();
    const here = place === undefined ? undefined : atLine(stale, place.uri, place.line);
    const [first] = stale;
    if (first === undefined) return quiet('$(info) Nothing is out of date.');
    await vscode.commands.executeCommand(
      'selfloop.ask',
      here === undefined
        ? { intent: 'again', gateId: first.gateId }
        : { intent: 'again', gateId: here.gateId, hunkId: here.hunkId },
    );
  }

  // The server's own commands

  /** Lenses, light bulb and hovers: the same decisions, so that refusals are shown and the pointer follows. */
  private async serverCommand(name: string, argument: Record<string, unknown>): Promise<boolean> {
    const gateId = argument['gateId'];
    if (typeof gateId !== 'string') return false;
    if (name === 'selfloop.gate.show') {
      const item = ordered(this.gates.openViews, ['pending', 'stale']).find(
        (one) => one.gateId === gateId && one.hunkId === argument['hunkId'],
      );
      const view = this.gates.view(gateId);
      // A lens says only which gate: it is clicked in the file that it is about.
      const here = activePlace();
      const near = item ?? (here && view && ordered([view], ['pending', 'stale']).find((one) => one.uri === here.uri));
      if (near === undefined || view === undefined || argument['whole'] === true) await this.open(gateId);
      else await this.diffs.showFile(view, near.uri, item ?? this.nearest(near, here));
      return true;
    }
    const optionId = argument['optionId'];
    if (name !== 'selfloop.gate.resolve' || typeof optionId !== 'string') return false;
    const refs = hunkRefs(argument['hunks']);
    const digest = typeof argument['digest'] === 'string' ? argument['digest'] : undefined;
    const result: GateResolveResult | undefined = await this.gates.resolve(gateId, optionId, refs, undefined, digest);
    if (result !== undefined && result.conflicts.length === 0) {
      if (this.items.length === 0) this.nothingLeft();
      else if (this.current === undefined) this.pointAt(neighbour(this.items, activePlace(), 1));
    }
    return true;
  }

  private nearest(item: Item, place: Place | undefined): Item {
    if (place === undefined) return item;
    return atLine(this.items, place.uri, place.line) ?? item;
  }

  dispose(): void {
    for (const one of this.subscriptions) one.dispose();
    this.moved.dispose();
  }
}

function keyOf(item: Item): string {
  return `${item.gateId}/${item.hunkId}`;
}

function asked(argument: unknown): Asked {
  return typeof argument === 'object' && argument !== null && !(argument instanceof vscode.Uri)
    ? (argument as Asked)
    : {};
}

function hunkRefs(value: unknown): HunkRef[] | undefined {
  return Array.isArray(value) ? (value as HunkRef[]) : undefined;
}

function quiet(text: string): void {
  void vscode.window.setStatusBarMessage(text, QUIET_MS);
}
