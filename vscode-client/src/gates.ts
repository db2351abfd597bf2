// The open gates as this window knows them, and deciding them.
//
// Invariants: a decision carries the digest of what was shown, and is repeated by itself only where exactly that is
// still there. What is known is the server's word; between a decision and its next word lines are moved along.

import * as vscode from 'vscode';
import type { GateInfo, GateReadResult, GateResolveParams, GateResolveResult, HunkRef } from './protocol';
import { decided, itemsOf, relocate } from './review_model';
import { Saving } from './saving';
import { RequestError, sentence, show, type Server } from './server';
import { unlinked } from './trust_card';

/** A document is read anew this long after its last change, so that typing costs nothing. */
const SETTLE_MS = 150;
const BURST_MS = 20;
const STALE = -32801;
/** Approved changes that can be taken back from the list. */
const MOST_APPLIED = 10;
const REMEMBERED_MS = 24 * 3600 * 1000;

/** A change that was approved, and can be taken back. */
export interface AppliedChange {
  gateId: string;
  title: string;
  sessionId?: string;
  files: string[];
}

export class Gates implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  /** The list of gates, or where their hunks lie, has changed. */
  readonly onDidChange = this.changed.event;
  private readonly asked = new vscode.EventEmitter<GateInfo>();
  /** A gate was opened. */
  readonly onDidOpen = this.asked.event;
  private readonly known = new Map<string, GateInfo>();
  private readonly views = new Map<string, GateReadResult>();
  private readonly undoable = new Map<string, AppliedChange>();
  /** The newest update of each gate: a replay of older ones is no news. */
  private readonly newest = new Map<string, number>();
  private readonly timers = new Map<string, NodeJS.Timeout>();
  private readonly asking = new Map<string, number>();
  private listing: NodeJS.Timeout | undefined;
  private listedEnded = false;
  private reads = 0;
  private readonly subscriptions: vscode.Disposable[];

  private readonly saving: Saving;

  constructor(private readonly server: Server) {
    this.saving = new Saving(server);
    const touched = (uris: readonly vscode.Uri[], delayMs: number): void => {
      for (const uri of uris) this.documentChanged(uri, delayMs);
    };
    this.subscriptions = [
      server.onDidChangeState((state) => {
        if (state.kind === 'running') this.listSoon(0);
        else if (state.kind !== 'starting') this.forget();
      }),
      server.onUpdate(({ update, seq }) => {
        if (update.type === 'gate') this.updated(update.gate, seq);
        else if (update.type === 'generation') this.listSoon(500);
      }),
      vscode.workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
        if (contentChanges.length > 0) touched([document.uri], SETTLE_MS);
      }),
      vscode.workspace.onDidOpenTextDocument((document) => touched([document.uri], SETTLE_MS)),
      vscode.workspace.onDidCloseTextDocument((document) => touched([document.uri], SETTLE_MS)),
      vscode.workspace.onDidDeleteFiles(({ files }) => touched(files, SETTLE_MS)),
      vscode.workspace.onDidCreateFiles(({ files }) => touched(files, SETTLE_MS)),
      vscode.workspace.onDidRenameFiles(({ files }) =>
        touched(
          files.flatMap((one) => [one.oldUri, one.newUri]),
          SETTLE_MS,
        ),
      ),
    ];
  }

  // Looking

  /** Open gates, oldest first. */
  get open(): readonly GateInfo[] {
    return [...this.known.values()].sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
  }

  /** An open gate. */
  info(gateId: string): GateInfo | undefined {
    return this.known.get(gateId);
  }

  /** Changes that were approved and can be taken back, newest last. */
  get applied(): readonly AppliedChange[] {
    return [...this.undoable.values()];
  }

  /** The gate with its hunks, as last read; undefined before the first read. Its URIs are spelt as VS Code does. */
  view(gateId: string): GateReadResult | undefined {
    return this.views.get(gateId);
  }

  /** The views of all open gates on changes that were read so far. */
  get openViews(): GateReadResult[] {
    return this.open.flatMap((gate) => this.views.get(gate.gateId) ?? []);
  }

  /** Ask the server for a gate as it is now. */
  async read(gateId: string): Promise<GateReadResult> {
    const number = ++this.reads;
    const view = spelt(await this.server.request('selfloop/gate/read', { gateId }));
    if (number > (this.asking.get(gateId) ?? 0)) {
      this.asking.set(gateId, number);
      this.views.set(gateId, view);
      if (view.gate.state === 'open') {
        this.known.set(gateId, view.gate);
        const isApplied = itemsOf(view).some((item) => item.status === 'approved');
        if (!isApplied) this.undoable.delete(gateId);
        else if (!this.undoable.has(gateId)) this.remember(view.gate);
      } else {
        this.known.delete(gateId);
      }
      this.changed.fire();
    }
    return view;
  }

  // Keeping up

  private updated(gate: GateInfo, seq: number): void {
    if ((this.newest.get(gate.gateId) ?? 0) > seq) return;
    this.newest.set(gate.gateId, seq);
    if (gate.state === 'open') {
      const isNew = !this.known.has(gate.gateId);
      this.known.set(gate.gateId, gate);
      if (isNew) this.asked.fire(gate);
      this.readSoon(gate.gateId, BURST_MS);
      if (isNew && gate.subject['type'] === 'command') this.changed.fire();
    } else {
      this.ended(gate);
      this.changed.fire();
    }
  }

  private ended(gate: GateInfo): void {
    this.known.delete(gate.gateId);
    clearTimeout(this.timers.get(gate.gateId));
    this.timers.delete(gate.gateId);
    if (gate.subject['type'] === 'changes' && (gate.resolvedBy === 'approve' || gate.resolvedBy === 'mixed'))
      this.remember(gate);
  }

  private remember(gate: GateInfo): void {
    this.undoable.delete(gate.gateId);
    const change: AppliedChange = { gateId: gate.gateId, title: gate.title, files: this.approvedFiles(gate) };
    if (gate.sessionId !== undefined) change.sessionId = gate.sessionId;
    this.undoable.set(gate.gateId, change);
    for (const oldest of [...this.undoable.keys()].slice(0, -MOST_APPLIED)) this.undoable.delete(oldest);
  }

  /** The files of which something was approved; all of a gate's where its hunks are not known here. */
  private approvedFiles(gate: GateInfo): string[] {
    const view = this.views.get(gate.gateId);
    const approved = view === undefined ? [] : itemsOf(view).filter((item) => item.status === 'approved');
    return approved.length > 0 ? [...new Set(approved.map((item) => item.uri))] : filesOf(gate);
  }

  private forget(): void {
    for (const timer of this.timers.values()) clearTimeout(timer);
    for (const map of [this.timers, this.known, this.views, this.undoable, this.newest]) map.clear();
    this.listedEnded = false;
    this.changed.fire();
  }

  private listSoon(delayMs: number): void {
    clearTimeout(this.listing);
    this.listing = setTimeout(() => void this.list().catch((error: unknown) => this.note('the gates', error)), delayMs);
  }

  private async list(): Promise<void> {
    const { gates } = await this.server.request('selfloop/gate/list', { state: 'open' });
    const open = new Set(gates.map((gate) => gate.gateId));
    for (const gateId of this.known.keys()) if (!open.has(gateId)) this.known.delete(gateId);
    const fresh = gates.filter((gate) => !this.known.has(gate.gateId));
    for (const gate of gates) this.known.set(gate.gateId, gate);
    await Promise.all(
      gates.map((gate) => this.read(gate.gateId).catch((error: unknown) => this.note(gate.title, error))),
    );
    for (const gate of fresh) if (this.known.has(gate.gateId)) this.asked.fire(gate);
    this.changed.fire();
    if (this.listedEnded) return;
    this.listedEnded = true;
    const { gates: ended } = await this.server.request('selfloop/gate/list', { state: 'resolved' });
    const recent = ended.filter((gate) => Date.now() - Date.parse(gate.createdAt) < REMEMBERED_MS);
    for (const gate of recent.slice(-MOST_APPLIED)) if (!this.undoable.has(gate.gateId)) this.ended(gate);
    this.changed.fire();
  }

  private documentChanged(uri: vscode.Uri, delayMs: number): void {
    if (uri.scheme !== 'file' || this.known.size === 0) return;
    const name = uri.toString();
    for (const { gate, files } of this.openViews) {
      if (files.some((file) => file.uri === name || file.oldUri === name)) this.readSoon(gate.gateId, delayMs);
    }
  }

  /** Read a gate once things have settled; asked again sooner or while it is being read, the later reading counts. */
  private readSoon(gateId: string, delayMs: number): void {
    clearTimeout(this.timers.get(gateId));
    const timer = setTimeout(() => {
      this.timers.delete(gateId);
      void this.read(gateId).catch((error: unknown) => this.note(gateId, error));
    }, delayMs);
    this.timers.set(gateId, timer);
  }

  /** What could not be read is no failure of something that the user did, so it goes to the log. */
  private note(what: string, error: unknown): void {
    this.server.output.warn(`Could not read ${what}: ${sentence(error)}`);
  }

  // Deciding

  /**
   * Decide some hunks (by their digests) or the whole gate (by its own); shows conflicts and refusals to the user.
   *
   * @param hunks ids of hunks as the view shows them, or ids with the digests that were shown elsewhere.
   * @returns undefined where the server refused, which the user was told.
   */
  async resolve(
    gateId: string,
    optionId: string,
    hunks?: readonly (string | HunkRef)[],
    comment?: string,
    digest?: string,
  ): Promise<GateResolveResult | undefined> {
    try {
      const shown = this.views.get(gateId) ?? (await this.read(gateId));
      // What no longer fits cannot be approved, and must not keep the rest from it.
      const isPartlyStale = optionId === 'approve' && itemsOf(shown).some((item) => item.status === 'stale');
      const chosen = hunks ?? (isPartlyStale ? waiting(shown, optionId) : undefined);
      const wanted = chosen?.map((hunk) => (typeof hunk === 'string' ? refOf(shown, hunk) : hunk));
      await this.saving.settled(urisOf(shown, wanted));
      const result = await this.decide(shown, optionId, wanted, comment, digest);
      this.applyResult(shown, optionId, wanted, result);
      this.explain(result);
      return result;
    } catch (error) {
      if (error instanceof RequestError && error.code !== STALE) this.readSoon(gateId, BURST_MS);
      show(error);
      return undefined;
    }
  }

  private async decide(
    shown: GateReadResult,
    optionId: string,
    wanted: HunkRef[] | undefined,
    comment?: string,
    digest?: string,
  ): Promise<GateResolveResult> {
    const gateId = shown.gate.gateId;
    const said = comment === undefined ? {} : { comment };
    const ask = (params: Pick<GateResolveParams, 'digest' | 'hunks'>): Promise<GateResolveResult> =>
      this.server.request('selfloop/gate/resolve', { gateId, optionId, ...said, ...params });
    try {
      return await ask(wanted ? { hunks: wanted } : { digest: digest ?? shown.gate.digest });
    } catch (error) {
      const isChanges = shown.gate.subject['type'] === 'changes';
      if (!(error instanceof RequestError) || error.code !== STALE || !isChanges) throw error;
      // The whole gate's digest covers the user's text too, so typing changes it; what the hunks do may be the same.
      const all = wanted ?? waiting(shown, optionId);
      const again = relocate(shown, all, await this.read(gateId));
      if (again === undefined || again.length === 0) {
        throw new Error(
          'This change is not what was shown any more, so nothing was done; look at it as it is now and decide again.',
        );
      }
      return await ask({ hunks: again });
    }
  }

  /** Show the outcome at once; the server's own word, with places to the character, follows. */
  private applyResult(
    shown: GateReadResult,
    optionId: string,
    wanted: HunkRef[] | undefined,
    result: GateResolveResult,
  ): void {
    const gateId = shown.gate.gateId;
    const view = this.views.get(gateId);
    if (view !== undefined && result.conflicts.length === 0) {
      const ids = new Set((wanted ?? waiting(shown, optionId)).map((ref) => ref.hunkId));
      const status = optionId === 'approve' ? 'approved' : 'rejected';
      const pending = new Set(
        itemsOf(view).flatMap((item) =>
          (item.status === 'pending' || item.status === 'stale') && ids.has(item.hunkId) ? [item.hunkId] : [],
        ),
      );
      this.views.set(gateId, { ...decided(view, pending, status), gate: result.gate });
      this.asking.set(gateId, ++this.reads);
    }
    if (result.gate.state === 'open') this.known.set(gateId, result.gate);
    else this.ended(result.gate);
    if (result.applied.length > 0 && optionId === 'approve') this.remember(result.gate);
    this.readSoon(gateId, SETTLE_MS);
    this.changed.fire();
  }

  private explain(result: { conflicts: { uri: string; reason: string }[] }): void {
    if (result.conflicts.length === 0) return;
    const reasons = [...new Set(result.conflicts.map((conflict) => conflict.reason))];
    const more = reasons.length > 3 ? ` And ${reasons.length - 3} more.` : '';
    void vscode.window.showWarningMessage(unlinked(reasons.slice(0, 3).join(' ')) + more);
  }

  /** Take back what a gate applied, over all its files; shows what stands in the way. */
  async undo(gateId: string): Promise<void> {
    const change = this.undoable.get(gateId);
    try {
      const result = await this.server.request('selfloop/change/undo', { gateId });
      this.explain(result);
      if (result.conflicts.length > 0) return;
      this.undoable.delete(gateId);
      const files = result.applied.length;
      const what = change ? ` “${change.title}”` : '';
      void vscode.window.setStatusBarMessage(
        files === 0
          ? `$(info) Nothing of${what || ' this change'} was left to take back.`
          : `$(discard) Taken back${what}: ${files === 1 ? '1 file' : `${files} files`}.`,
        6000,
      );
      this.listSoon(0);
      this.changed.fire();
    } catch (error) {
      show(error);
    }
  }

  dispose(): void {
    for (const one of this.subscriptions) one.dispose();
    clearTimeout(this.listing);
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.changed.dispose();
    this.asked.dispose();
  }
}

/** What an answer to the whole gate is about: approving leaves alone what no longer fits. */
function waiting(view: GateReadResult, optionId: string): HunkRef[] {
  return itemsOf(view)
    .filter((item) => item.status === 'pending' || (item.status === 'stale' && optionId !== 'approve'))
    .map(({ hunkId, digest }) => ({ hunkId, digest }));
}

/** The files that a decision is about. */
function urisOf(view: GateReadResult, wanted: readonly HunkRef[] | undefined): string[] {
  const ids = wanted && new Set(wanted.map((ref) => ref.hunkId));
  return view.files
    .filter((file) => ids === undefined || file.hunks.some((hunk) => ids.has(hunk.hunkId)))
    .map((file) => file.uri);
}

function refOf(view: GateReadResult, hunkId: string): HunkRef {
  const hunk = view.files.flatMap((file) => file.hunks).find((one) => one.hunkId === hunkId);
  if (hunk === undefined)
    throw new Error('This change is not proposed any more, so nothing was done; look at what waits now.');
  return { hunkId, digest: hunk.digest };
}

function filesOf(gate: GateInfo): string[] {
  const files = gate.subject['files'];
  if (!Array.isArray(files)) return [];
  return files.flatMap((file: unknown) =>
    typeof file === 'object' && file !== null && 'uri' in file && typeof file.uri === 'string' ? [spell(file.uri)] : [],
  );
}

/** One spelling for every URI, so that they can be compared as text. */
function spell(uri: string): string {
  return vscode.Uri.parse(uri).toString();
}

function spelt(view: GateReadResult): GateReadResult {
  return {
    ...view,
    files: view.files.map((file) => ({
      ...file,
      uri: spell(file.uri),
      ...(file.oldUri === undefined ? {} : { oldUri: spell(file.oldUri) }),
    })),
  };
}
