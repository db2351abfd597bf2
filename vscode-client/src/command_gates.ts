// Commands that wait for an answer: a notification with the exact command, and the answers themselves.
//
// Invariants: only one notification is shown at a time, and its first button changes nothing. A command that it cannot
// show exactly cannot be approved from it. What *always* would store is shown word for word before it is stored.

import * as vscode from 'vscode';
import type { Gates } from './gates';
import type { GateInfo, GateOption } from './protocol';
import { show } from './server';
import { commandFacts, commandOf, unlinked } from './trust_card';

/** The longest command that a notification shows as it is. */
const MOST_CHARACTERS = 240;
const SHOW = 'Show';

export class CommandGates implements vscode.Disposable {
  private readonly waiting: string[] = [];
  private isAsking = false;
  private readonly subscription: vscode.Disposable;

  constructor(
    private readonly gates: Gates,
    private readonly reveal: (gateId: string) => Promise<void>,
  ) {
    this.subscription = gates.onDidOpen((gate) => {
      if (commandOf(gate) === undefined || this.waiting.includes(gate.gateId)) return;
      this.waiting.push(gate.gateId);
      void this.ask().catch(show);
    });
  }

  private async ask(): Promise<void> {
    if (this.isAsking) return;
    this.isAsking = true;
    try {
      for (let gateId = this.waiting.shift(); gateId !== undefined; gateId = this.waiting.shift()) {
        const gate = await this.stillOpen(gateId);
        if (gate !== undefined) await Promise.race([this.notify(gate), this.answered(gateId)]);
      }
    } finally {
      this.isAsking = false;
    }
  }

  /** A replay tells of gates that were answered long ago, so the server is asked first. */
  private async stillOpen(gateId: string): Promise<GateInfo | undefined> {
    const { gate } = await this.gates.read(gateId);
    return gate.state === 'open' ? gate : undefined;
  }

  /** The next may be asked about once this one is answered anywhere; its notification cannot be taken away by us. */
  private answered(gateId: string): Promise<void> {
    return new Promise((resolve) => {
      const watch = this.gates.onDidChange(() => {
        if (this.gates.info(gateId) !== undefined) return;
        watch.dispose();
        resolve();
      });
    });
  }

  private async notify(gate: GateInfo): Promise<void> {
    const subject = commandOf(gate);
    if (subject === undefined) return;
    // What the editor would show otherwise than it is (long, of several lines, with a link in it) is looked at first.
    const isExact =
      subject.shown.length <= MOST_CHARACTERS &&
      !/\s{2}|[\n\t]/.test(subject.shown) &&
      unlinked(subject.shown) === subject.shown;
    const start = unlinked(subject.shown.replace(/\s+/g, ' ')).slice(0, MOST_CHARACTERS);
    const facts = unlinked(commandFacts(subject));
    const text = isExact
      ? `Selfloop wants to run: ${subject.shown} — ${facts}`
      : `Selfloop wants to run a command that does not fit here (${facts}). It begins: ${start}…`;
    const options = gate.options.filter((option) => isExact || option.kind.startsWith('reject'));
    const names = options.map((option) => option.name);
    const picked = await vscode.window.showInformationMessage(text, SHOW, ...names);
    if (picked === undefined) return;
    const option = options.find((one) => one.name === picked);
    if (this.gates.info(gate.gateId) === undefined) {
      void vscode.window.showInformationMessage('This command was answered elsewhere, so nothing was changed.');
    } else if (option === undefined) {
      await this.reveal(gate.gateId);
    } else {
      await answer(this.gates, gate, option);
    }
  }

  dispose(): void {
    this.subscription.dispose();
  }
}

/** Answer a command's gate; *always* is confirmed by the exact rule that it stores. Returns whether it was answered. */
export async function answer(gates: Gates, gate: GateInfo, option: GateOption): Promise<boolean> {
  if (option.kind === 'allow_always' && !(await confirmed(gate, option))) return false;
  return (await gates.resolve(gate.gateId, option.optionId, undefined, undefined, gate.digest)) !== undefined;
}

async function confirmed(gate: GateInfo, option: GateOption): Promise<boolean> {
  const label = 'Always Allow';
  const rule = option.rule ?? gate.title;
  const detail = `The rule that is stored:\n\n${rule}\n\nIt allows nothing else. “Remembered Rules…” revokes it.`;
  return (
    (await vscode.window.showWarningMessage('Always allow this command?', { modal: true, detail }, label)) === label
  );
}
