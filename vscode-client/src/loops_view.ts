// The view "Loops": each loop with its level, cadence, next run, last outcome and spend; below it what waits, and its
// last rounds.
//
// Invariants: a node is made from what the loops tell each time and holds no state. A round that ends is told by the
// view's badge alone; a notification comes only for what waits for a decision, one for all that come together.

import * as vscode from 'vscode';
import type { Gates } from './gates';
import { icon } from './gate_items';
import { isIn, type LoopEntry, type Loops } from './loops';
import { describe, LEVELS, outcome, PHASES, spending, spentBy, tokens, whenDue, whenWas } from './loop_words';
import type { GateInfo, RoundReport, RunningInfo } from './protocol';
import { plural, visible } from './review_model';
import { sentence, show } from './server';
import { code, escape, unlinked } from './trust_card';

/** `in 5 min` is drawn anew this often while the view can be seen. */
const TICK_MS = 30_000;
const DIGEST_MS = 1_500;
const TOLD = 'selfloop.loops.told';
const MOST_TOLD = 200;

/** A node of the tree. */
export type LoopNode =
  | { type: 'loop'; entry: LoopEntry }
  | { type: 'waiting'; gate: GateInfo }
  | { type: 'running'; run: RunningInfo }
  | { type: 'round'; report: RoundReport }
  | { type: 'words'; text: string; key: string };

export class LoopsView implements vscode.TreeDataProvider<LoopNode>, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.changed.event;
  private readonly view: vscode.TreeView<LoopNode>;
  private readonly subscriptions: vscode.Disposable[];
  private readonly asking = new Map<string, GateInfo>();
  private digest: NodeJS.Timeout | undefined;
  private readonly ticking: NodeJS.Timeout;
  private progressEnds: (() => void) | undefined;

  constructor(
    private readonly memory: vscode.Memento,
    private readonly loops: Loops,
    private readonly gates: Gates,
  ) {
    this.view = vscode.window.createTreeView('selfloop.loops', { treeDataProvider: this, showCollapseAll: true });
    this.subscriptions = [
      this.view,
      this.changed,
      this.view.onDidChangeVisibility(({ visible: isVisible }) => {
        if (!isVisible) return;
        loops.want();
        this.refresh();
      }),
      loops.onDidChange(() => this.refresh()),
      gates.onDidChange(() => this.refresh()),
      gates.onDidOpen((gate) => this.opened(gate)),
    ];
    this.ticking = setInterval(() => this.view.visible && this.refresh(), TICK_MS);
    if (this.view.visible) loops.want();
  }

  private refresh(): void {
    const { running, failure, news } = this.loops;
    if (this.view.visible) this.loops.seen();
    const count = this.view.visible ? 0 : news.length;
    this.view.badge =
      count === 0 ? undefined : { value: count, tooltip: `${plural(count, 'new report')} of your loops` };
    this.view.description = running.size > 0 ? `${running.size} running` : '';
    // The view's message cannot be undefined and absent alike, and an empty one is none.
    this.view.message = failure === undefined ? '' : visible(failure);
    this.showProgress(running.size > 0);
    this.changed.fire();
  }

  /** A line of progress over the view while anything runs; each loop has its own button to cancel. */
  private showProgress(isRunning: boolean): void {
    if (!isRunning) {
      this.progressEnds?.();
      this.progressEnds = undefined;
    } else if (this.progressEnds === undefined) {
      const ended = new Promise<void>((resolve) => (this.progressEnds = resolve));
      void vscode.window.withProgress({ location: { viewId: 'selfloop.loops' } }, () => ended);
    }
  }

  // What needs a decision

  private opened(gate: GateInfo): void {
    if (!this.isRoundsOwn(gate) || this.told.includes(gate.gateId)) return;
    this.asking.set(gate.gateId, gate);
    this.digest ??= setTimeout(() => {
      this.digest = undefined;
      void this.tell().catch(show);
    }, DIGEST_MS);
  }

  /** A level's gate is opened by the user, who is before it already; a command's is told of where commands are. */
  private isRoundsOwn({ subject, runId }: GateInfo): boolean {
    return runId !== undefined && ['changes', 'action', 'evolution'].includes(String(subject['type']));
  }

  private get told(): readonly string[] {
    return this.memory.get<string[]>(TOLD, []);
  }

  private async tell(): Promise<void> {
    const gates = [...this.asking.values()].filter((gate) => this.gates.info(gate.gateId) !== undefined);
    this.asking.clear();
    const [first] = gates;
    if (first === undefined) return;
    await this.memory.update(TOLD, [...this.told, ...gates.map((gate) => gate.gateId)].slice(-MOST_TOLD));
    if (!vscode.workspace.getConfiguration('selfloop').get('notifyWhenReviewWaits', true)) return;
    const text =
      gates.length === 1
        ? `A loop waits for your decision: ${unlinked(first.title)}`
        : `Loops wait for ${gates.length} decisions of yours.`;
    if ((await vscode.window.showInformationMessage(text, 'Review')) !== 'Review') return;
    if (gates.length === 1) await vscode.commands.executeCommand('selfloop.loops.review', first.gateId);
    else await vscode.commands.executeCommand('selfloop.loops.focus');
  }

  // Nodes

  async getChildren(node?: LoopNode): Promise<LoopNode[]> {
    if (node === undefined) {
      this.loops.want();
      return this.loops.entries.map((entry) => ({ type: 'loop', entry }));
    }
    if (node.type !== 'loop') return [];
    const { loop } = node.entry;
    const run = this.loops.runOf(node.entry);
    const notices = (loop.notices ?? []).map((text, index): LoopNode => {
      return { type: 'words', text, key: `${idOf(node.entry)}/notice/${index}` };
    });
    const waiting = this.waitingFor(node.entry).map((gate): LoopNode => ({ type: 'waiting', gate }));
    const running: LoopNode[] = run === undefined ? [] : [{ type: 'running', run }];
    let rounds: LoopNode[];
    try {
      rounds = (await this.loops.runsOf(node.entry)).map((report) => ({ type: 'round', report }));
    } catch (error) {
      rounds = [{ type: 'words', text: sentence(error), key: `${idOf(node.entry)}/failure` }];
    }
    const all = [...notices, ...waiting, ...running, ...rounds];
    return all.length > 0 ? all : [{ type: 'words', text: 'It has not run yet.', key: `${idOf(node.entry)}/none` }];
  }

  /** Gates that wait because of a loop. */
  private waitingFor(entry: LoopEntry): GateInfo[] {
    return this.gates.open.filter((gate) => {
      const run = gate.runId === undefined ? undefined : this.loops.loopOf(gate.runId);
      return (gate.subject['loopId'] ?? run?.loopId) === entry.loop.loopId && isIn(entry, run ?? {});
    });
  }

  getTreeItem(node: LoopNode): vscode.TreeItem {
    switch (node.type) {
      case 'loop':
        return this.loopItem(node.entry);
      case 'waiting':
        return waitingItem(node.gate);
      case 'running':
        return runningItem(node.run);
      case 'round':
        return roundItem(node.report);
      case 'words':
        return Object.assign(new vscode.TreeItem(visible(node.text)), { id: node.key, tooltip: visible(node.text) });
    }
  }

  private loopItem(entry: LoopEntry): vscode.TreeItem {
    const { loop, folder } = entry;
    const now = new Date();
    const run = this.loops.runOf(entry);
    const waits = this.waitingFor(entry).length;
    const today = spentBy(
      this.loops.spend.filter((row) => isIn(entry, row)),
      loop.loopId,
    );
    const item = new vscode.TreeItem(visible(loop.loopId), vscode.TreeItemCollapsibleState.Collapsed);
    item.id = idOf(entry);
    const facts = describe(loop, today, now, run?.phase);
    item.description = visible(
      [waits > 0 ? `${waits} waiting` : '', facts, folder?.name ?? ''].filter(Boolean).join(' · '),
    );
    item.iconPath =
      run !== undefined
        ? icon('loading~spin')
        : waits > 0
          ? icon('bell-dot', 'list.warningForeground')
          : loop.enabled && loop.lastRun?.outcome.type === 'failed'
            ? icon('error', 'list.errorForeground')
            : loop.enabled
              ? icon('sync')
              : icon('circle-slash', 'disabledForeground');
    item.contextValue = [
      'loop',
      loop.enabled ? 'on' : 'off',
      run === undefined ? 'still' : 'running',
      loop.uri === undefined ? '' : 'file',
    ]
      .filter(Boolean)
      .join(' ');
    item.tooltip = card(entry, now, spending(today));
    item.accessibilityInformation = {
      label: `Loop ${item.label}, ${loop.enabled ? 'on' : 'off'}, ${item.description}`,
    };
    return item;
  }

  dispose(): void {
    clearTimeout(this.digest);
    clearInterval(this.ticking);
    this.progressEnds?.();
    for (const one of this.subscriptions) one.dispose();
  }
}

function idOf({ loop, folder }: LoopEntry): string {
  return `loop/${folder?.uri.toString() ?? ''}/${loop.loopId}`;
}

function card({ loop }: LoopEntry, now: Date, today: string): vscode.MarkdownString {
  const level = LEVELS.find((one) => one.level === loop.level);
  const { budget, lastRun: last } = loop;
  const limit = (count: number | undefined): string => (count === undefined ? 'no limit' : `${tokens(count)} tokens`);
  const next = loop.enabled ? (whenDue(loop.nextAt, now) ?? 'not by the clock') : 'never: it is off';
  const lines = [
    `**${escape(loop.loopId)}**`,
    escape(loop.intent),
    `**${level?.short} ${level?.name}.** ${level?.meaning}`,
    `Cadence: ${code(loop.cadence)} · next: ${escape(next)}`,
    `Action: ${code(loop.action)} · allowed without asking: ${loop.allow?.map(code).join(', ') || 'nothing'}`,
    `Budget: ${limit(budget.maxTotalTokens)} a round, ${limit(budget.day?.maxTotalTokens)} a day`,
    `Spent today: ${escape(today)}`,
    last === undefined
      ? 'It has not run yet.'
      : `Last: ${escape(`${outcome(last)} ${whenWas(last.endedAt, now) ?? ''}`)}`,
    ...(loop.notices ?? []).map((notice) => `$(warning) ${escape(notice)}`),
  ];
  return new vscode.MarkdownString(lines.join('\n\n'), true);
}

function waitingItem(gate: GateInfo): vscode.TreeItem {
  const item = new vscode.TreeItem(visible(gate.title));
  item.id = `waiting/${gate.gateId}`;
  item.description = 'waits for you';
  item.iconPath = icon('bell-dot', 'list.warningForeground');
  item.contextValue = 'waiting';
  item.command = { command: 'selfloop.loops.review', title: 'Review', arguments: [gate.gateId] };
  item.tooltip = visible(gate.description ?? gate.title);
  item.accessibilityInformation = { label: `Waits for you: ${item.label}, ${gate.risk} risk` };
  return item;
}

function runningItem(run: RunningInfo): vscode.TreeItem {
  const item = new vscode.TreeItem(`${PHASES[run.phase] ?? run.phase}…`);
  item.id = `running/${run.runId}`;
  item.description = `since ${whenWas(run.startedAt, new Date())?.replace(' ago', '') ?? 'now'}`.replace(
    'since just now',
    '',
  );
  item.iconPath = icon('loading~spin');
  item.contextValue = 'run running';
  item.command = { command: 'selfloop.loops.show', title: 'Show', arguments: [run.runId] };
  return item;
}

function roundItem(report: RoundReport): vscode.TreeItem {
  const { outcome: result } = report;
  const words = outcome(report);
  const item = new vscode.TreeItem(words.charAt(0).toUpperCase() + words.slice(1));
  item.id = `round/${report.runId}`;
  const spent = {
    tokens: report.inputTokens + report.outputTokens,
    ...(report.costUsd === undefined ? {} : { costUsd: report.costUsd }),
  };
  item.description = `${whenWas(report.endedAt, new Date()) ?? ''} · ${spending(spent)}`;
  item.iconPath = {
    reported: icon('note'),
    proceeded: icon('pass', 'testing.iconPassed'),
    escalated: icon('comment-unresolved', 'list.warningForeground'),
    'budget-exhausted': icon('dashboard', 'list.warningForeground'),
    failed: icon('error', 'list.errorForeground'),
  }[result.type];
  item.contextValue = 'run';
  item.command = { command: 'selfloop.loops.show', title: 'Show', arguments: [report.runId] };
  const why = result.error ?? result.reason ?? report.maker?.text.trim().slice(0, 400) ?? '';
  item.tooltip = visible(why || words);
  item.accessibilityInformation = { label: `Round ${words}, ${item.description}` };
  return item;
}
