// The view "Waiting for You": proposals with their files and hunks, commands, and what was approved lately.
//
// Invariant: a node is made from the gates each time and holds no state; deciding on a parent decides exactly the hunks
// that are listed below it, each by its own digest.

import * as vscode from 'vscode';
import { answer, CommandGates } from './command_gates';
import {
  appliedItem,
  commandItem,
  equalItem,
  fileItem,
  hunkItem,
  icon,
  isWaiting,
  proposalItem,
  questionItem,
  type Node,
} from './gate_items';
import type { Gates } from './gates';
import type { GateInfo, GateReadResult } from './protocol';
import type { Review } from './review';
import { byRiskAndAge, comparePaths, equalChanges, itemsOf, plural, type Item } from './review_model';
import { show } from './server';
import { commandOf } from './trust_card';

const WAITING = ['pending', 'stale'] as const;

export class GateTree implements vscode.TreeDataProvider<Node>, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.changed.event;
  private readonly view: vscode.TreeView<Node>;
  private readonly subscriptions: vscode.Disposable[];

  constructor(
    _context: vscode.ExtensionContext,
    private readonly gates: Gates,
    private readonly review: Review,
  ) {
    this.view = vscode.window.createTreeView('selfloop.gates', {
      treeDataProvider: this,
      canSelectMany: true,
      showCollapseAll: true,
    });
    const command = (name: string, run: (nodes: Node[]) => Promise<void>): vscode.Disposable =>
      vscode.commands.registerCommand(`selfloop.tree.${name}`, (node?: Node, nodes?: Node[]) =>
        run(nodes ?? (node ? [node] : [...this.view.selection])).catch(show),
      );
    this.subscriptions = [
      this.view,
      new CommandGates(gates, (gateId) => this.revealCommand(gateId)),
      gates.onDidChange(() => this.refresh()),
      command('approve', (nodes) => this.decide('approve', nodes)),
      command('reject', (nodes) => this.decide('reject', nodes)),
      command('always', (nodes) => this.always(nodes)),
      command('open', (nodes) => this.open(nodes[0])),
      command('undo', (nodes) => this.undo(nodes)),
      command('again', (nodes) => this.again(nodes)),
    ];
    this.refresh();
  }

  private refresh(): void {
    const commands = this.gates.open.filter((gate) => commandOf(gate) !== undefined).length;
    const hunks = this.review.items.length;
    const questions = this.roots().filter((node) => node.type === 'question').length;
    const count = commands + hunks + questions;
    const parts = [
      hunks > 0 ? plural(hunks, 'hunk') : '',
      commands > 0 ? plural(commands, 'command') : '',
      questions > 0 ? plural(questions, 'question') : '',
    ].filter(Boolean);
    this.view.badge =
      count === 0
        ? undefined
        : { value: count, tooltip: `${parts.join(' and ')} ${count === 1 ? 'waits' : 'wait'} for you` };
    this.changed.fire();
  }

  // Nodes

  getChildren(node?: Node): Node[] {
    if (node === undefined) return this.roots();
    switch (node.type) {
      case 'changes':
        return node.view === undefined ? [] : insideOf(node.view);
      case 'equal':
        return node.items.map((item) => ({ type: 'hunk', item, named: true }));
      case 'file':
        return node.items.length === 1 && node.items[0]!.kind !== 'text'
          ? []
          : node.items.map((item) => ({ type: 'hunk', item, named: false }));
      case 'approved':
        return this.gates.applied.toReversed().map((change) => ({ type: 'applied', change }));
      default:
        return [];
    }
  }

  private roots(): Node[] {
    const commands = new Map<string, GateInfo[]>();
    const roots: Node[] = [];
    for (const gate of byRiskAndAge(this.gates.open)) {
      const subject = commandOf(gate);
      if (subject === undefined) {
        const view = this.gates.view(gate.gateId);
        roots.push(gate.subject['type'] === 'changes' ? { type: 'changes', gate, view } : { type: 'question', gate });
        continue;
      }
      // The same command, asked several times: one answer for all.
      const key = JSON.stringify([subject.command, subject.folder, subject.network, subject.isolation]);
      const same = commands.get(key);
      if (same !== undefined) same.push(gate);
      else {
        const first = [gate];
        commands.set(key, first);
        roots.push({ type: 'command', gates: first });
      }
    }
    if (this.gates.applied.length > 0) roots.push({ type: 'approved' });
    return roots;
  }

  getParent(): undefined {
    return undefined; // Only roots are ever revealed.
  }

  getTreeItem(node: Node): vscode.TreeItem {
    switch (node.type) {
      case 'changes':
        return proposalItem(node.gate, node.view);
      case 'command':
        return commandItem(node.gates);
      case 'question':
        return questionItem(node.gate);
      case 'equal':
        return equalItem(node);
      case 'file':
        return fileItem(node);
      case 'hunk':
        return hunkItem(node.item, node.named);
      case 'approved': {
        const item = new vscode.TreeItem('Approved', vscode.TreeItemCollapsibleState.Collapsed);
        return Object.assign(item, {
          id: 'approved',
          iconPath: icon('pass'),
          tooltip: 'Approved lately; each can be taken back.',
        });
      }
      case 'applied':
        return appliedItem(node.change);
    }
  }

  // Deciding

  private async decide(option: 'approve' | 'reject', nodes: readonly Node[]): Promise<void> {
    const items = new Map<string, Item>();
    for (const item of nodes.flatMap((node) => this.itemsBelow(node))) {
      if (item.status === 'pending' || option === 'reject') items.set(`${item.gateId}/${item.hunkId}`, item);
    }
    if (items.size > 0) await this.review.decideItems(option, [...items.values()], true);
    for (const gate of nodes.flatMap((node) => (node.type === 'command' ? node.gates : []))) {
      const wanted = gate.options.find((one) => one.kind === (option === 'approve' ? 'allow_once' : 'reject_once'));
      if (wanted !== undefined) await answer(this.gates, gate, wanted);
    }
  }

  private itemsBelow(node: Node): Item[] {
    switch (node.type) {
      case 'changes':
        return node.view === undefined ? [] : itemsOf(node.view).filter(isWaiting);
      case 'equal':
      case 'file':
        return node.items;
      case 'hunk':
        return [node.item];
      default:
        return [];
    }
  }

  private async always(nodes: readonly Node[]): Promise<void> {
    for (const node of nodes) {
      if (node.type !== 'command') continue;
      const [first, ...others] = node.gates;
      const option = first?.options.find((one) => one.kind === 'allow_always');
      if (first === undefined || option === undefined) {
        throw new Error('No rule can be remembered here, so nothing was stored; approve the command once instead.');
      }
      if (!(await answer(this.gates, first, option))) continue;
      for (const gate of others) await this.gates.resolve(gate.gateId, 'approve', undefined, undefined, gate.digest);
    }
  }

  private async undo(nodes: readonly Node[]): Promise<void> {
    for (const node of nodes) if (node.type === 'applied') await this.gates.undo(node.change.gateId);
  }

  private async again(nodes: readonly Node[]): Promise<void> {
    for (const node of nodes) {
      const stale = this.itemsBelow(node).filter((item) => item.status === 'stale');
      const asks =
        node.type === 'changes' && stale.length > 0
          ? [{ intent: 'again', gateId: node.gate.gateId }]
          : stale.map((item) => ({ intent: 'again', gateId: item.gateId, hunkId: item.hunkId }));
      for (const ask of asks) await vscode.commands.executeCommand('selfloop.ask', ask);
    }
  }

  private async open(node: Node | undefined): Promise<void> {
    switch (node?.type) {
      case 'changes':
        return this.review.open(node.gate.gateId);
      case 'file':
        return this.review.open(node.gateId, node.file.uri);
      case 'hunk':
        return this.review.open(node.item.gateId, node.item.uri, node.item.hunkId);
      case 'equal':
        return node.items[0] && this.review.open(node.items[0].gateId, node.items[0].uri, node.items[0].hunkId);
      case 'command':
        return node.gates[0] && this.review.open(node.gates[0].gateId);
      default:
        return undefined;
    }
  }

  private async revealCommand(gateId: string): Promise<void> {
    const node = this.roots().find((one) => one.type === 'command' && one.gates.some((gate) => gate.gateId === gateId));
    await this.review.open(gateId);
    if (node !== undefined) await this.view.reveal(node, { select: true, focus: false });
  }

  dispose(): void {
    for (const one of this.subscriptions) one.dispose();
    this.changed.dispose();
  }
}

/** Equal changes first, then what is left, file by file. */
function insideOf(view: GateReadResult): Node[] {
  const equal = equalChanges(view, WAITING);
  const taken = new Set(equal.flatMap((group) => group.items.map((item) => item.hunkId)));
  const files = view.files
    .map((file): Extract<Node, { type: 'file' }> => {
      const items = itemsOf({ ...view, files: [file] }).filter((item) => isWaiting(item) && !taken.has(item.hunkId));
      return { type: 'file', gateId: view.gate.gateId, file, items };
    })
    .filter((node) => node.items.length > 0)
    .sort((a, b) => comparePaths(a.file.uri, b.file.uri));
  const groups = equal.map(({ items, oldText }): Node => ({
    type: 'equal',
    key: `${view.gate.gateId}/${items[0]!.hunkId}`,
    items,
    oldText,
  }));
  return [...groups, ...files];
}
