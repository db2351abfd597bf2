// What the panel's gate cards show beyond the gate itself: files, evidence, the trust card.

import * as vscode from 'vscode';
import type { Gates } from './gates';
import type { CardFile, GateCard } from './panel/messages';
import { diffSize } from './panel/text';
import type { GateFile, GateReadResult } from './protocol';

/** Keeps the cards of the gates that the panel shows up to date. */
export class Cards implements vscode.Disposable {
  private readonly shown = new Map<string, GateReadResult>();
  private readonly subscription: vscode.Disposable;

  constructor(
    private readonly gates: Gates,
    private readonly send: (card: GateCard) => void,
  ) {
    this.subscription = gates.onDidChange(() => this.refresh());
  }

  /** Forget what is shown: the panel is new, or shows another session. */
  clear(): void {
    this.shown.clear();
  }

  /** Send a gate's card, and again whenever it changes. */
  async show(gateId: string): Promise<void> {
    const view = this.gates.view(gateId) ?? (await this.gates.read(gateId));
    this.put(gateId, view);
  }

  private refresh(): void {
    for (const [gateId, before] of this.shown) {
      const view = this.gates.view(gateId);
      if (view !== undefined && view !== before) this.put(gateId, view);
    }
  }

  private put(gateId: string, view: GateReadResult): void {
    if (view.gate.state !== 'open') {
      this.shown.delete(gateId);
      return;
    }
    this.shown.set(gateId, view);
    this.send({
      gateId,
      digest: view.gate.digest,
      files: view.files.map(cardFile),
      evidence: view.evidence,
      ...(view.card === undefined ? {} : { card: view.card }),
    });
  }

  dispose(): void {
    this.subscription.dispose();
  }
}

function cardFile(file: GateFile): CardFile {
  const count = (status: string): number => file.hunks.filter((hunk) => hunk.status === status).length;
  return {
    uri: file.uri,
    path: vscode.workspace.asRelativePath(vscode.Uri.parse(file.uri)),
    operation: file.operation,
    ...diffSize(file.diff),
    pending: file.hunks.flatMap(({ hunkId, digest, status }) => (status === 'pending' ? [{ hunkId, digest }] : [])),
    stale: count('stale'),
    approved: count('approved'),
    rejected: count('rejected'),
  };
}
