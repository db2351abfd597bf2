// The loops of this window as the server tells them: which there are, what runs, their last rounds, what they spent.
//
// Invariants: nothing is polled, and nothing is asked for before somebody looks at the loops or the server says that a
// round runs. An update that comes while a list is being read is not lost: the list is read once more.

import * as vscode from 'vscode';
import type { LoopInfo, RoundReport, RunningInfo, SpendRow, UpdateEnvelope } from './protocol';
import { sentence, type Server } from './server';

/** Rounds that are listed below a loop. */
const MOST_RUNS = 5;
const SETTLE_MS = 250;
const SEEN = 'selfloop.loops.seenUntil';

/** One loop; `folder` is set where the window has several. */
export interface LoopEntry {
  loop: LoopInfo;
  folder?: vscode.WorkspaceFolder;
}

export class Loops implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  /** Loops, rounds, or what they spent have changed. */
  readonly onDidChange = this.changed.event;
  private readonly ended = new vscode.EventEmitter<string>();
  /** Something is new about the round with this id. */
  readonly onDidChangeRun = this.ended.event;
  /** Every loop, those that are on first. */
  entries: readonly LoopEntry[] = [];
  /** Rounds that run, by their id. */
  readonly running = new Map<string, RunningInfo>();
  /** What was spent today. */
  spend: readonly SpendRow[] = [];
  /** Why the loops could not be listed. */
  failure: string | undefined;
  private readonly recent = new Map<string, RoundReport[]>();
  private isWanted = false;
  private timer: NodeJS.Timeout | undefined;
  private reading: Promise<void> | undefined;
  private isStale = false;
  private readonly subscriptions: vscode.Disposable[];

  constructor(
    private readonly memory: vscode.Memento,
    private readonly server: Server,
  ) {
    this.subscriptions = [
      server.onUpdate((envelope) => this.updated(envelope)),
      server.onStatus(({ runs }) => {
        if (runs > 0 && !this.isWanted) this.want();
      }),
      server.onDidChangeState(({ kind }) => {
        if (kind === 'running' && this.isWanted) this.readSoon();
        else if (kind !== 'starting' && kind !== 'running') this.forget();
      }),
      vscode.workspace.onDidChangeWorkspaceFolders(() => this.isWanted && this.readSoon()),
    ];
  }

  /** Somebody looks: read what there is, once; from then on updates keep it. */
  want(): void {
    if (this.isWanted) return;
    this.isWanted = true;
    this.readSoon(0);
  }

  /** Read everything anew. @throws RequestError where the server refuses. */
  async refresh(): Promise<void> {
    this.isWanted = true;
    this.recent.clear();
    await this.read();
    if (this.failure !== undefined) throw new Error(this.failure);
  }

  /** The round of a loop that runs. */
  runOf(entry: LoopEntry): RunningInfo | undefined {
    return [...this.running.values()].find((run) => run.loopId === entry.loop.loopId && isIn(entry, run));
  }

  /** The last rounds of a loop, newest first. */
  async runsOf(entry: LoopEntry): Promise<readonly RoundReport[]> {
    const key = keyOf(entry);
    const known = this.recent.get(key);
    if (known !== undefined) return known;
    const where = entry.folder === undefined ? {} : { workspaceFolder: entry.folder.uri.toString() };
    const params = { loopId: entry.loop.loopId, limit: MOST_RUNS, ...where };
    const { runs } = await this.server.request('selfloop/run/list', params);
    // What came by an update meanwhile is newer.
    const told = this.recent.get(key) ?? [];
    const all = newest([...told, ...runs]);
    this.recent.set(key, all);
    return all;
  }

  /** The loop of a round, and its folder, as far as they are known here. */
  loopOf(runId: string): { loopId: string; workspaceFolder?: string } | undefined {
    const last = this.entries.flatMap(({ loop: { lastRun }, folder }): RoundReport[] =>
      lastRun === undefined ? [] : [{ ...lastRun, ...(folder && { workspaceFolder: folder.uri.toString() }) }],
    );
    const known = [...[...this.recent.values()].flat(), ...last];
    return this.running.get(runId) ?? known.find((report) => report.runId === runId);
  }

  // News

  /** Loops whose last round has ended since somebody looked, and has something to say. */
  get news(): readonly RoundReport[] {
    const seen = this.memory.get(SEEN, '');
    return this.entries.flatMap(({ loop: { lastRun } }) =>
      lastRun !== undefined && lastRun.endedAt > seen && lastRun.outcome.type !== 'proceeded' ? [lastRun] : [],
    );
  }

  /** Somebody has looked at what there is. */
  seen(): void {
    const last = this.entries.flatMap(({ loop }) => loop.lastRun?.endedAt ?? []).reduce((a, b) => (a > b ? a : b), '');
    if (last > this.memory.get(SEEN, '')) void this.memory.update(SEEN, last).then(undefined, this.note);
  }

  // Keeping up

  private updated({ update, at, workspaceFolder = '' }: UpdateEnvelope): void {
    if (update.type === 'run') {
      const { runId, loopId, phase, report } = update;
      const run = { startedAt: at, ...this.running.get(runId), runId, loopId, phase, workspaceFolder };
      if (phase === 'done') this.running.delete(runId);
      else this.running.set(runId, run);
      if (report !== undefined) {
        for (const entry of this.entries) {
          const known = this.recent.get(keyOf(entry));
          if (entry.loop.loopId !== loopId || !isIn(entry, run) || known === undefined) continue;
          this.recent.set(keyOf(entry), newest([{ ...report, workspaceFolder }, ...known]));
        }
      }
      this.ended.fire(runId);
      if (phase === 'done' || !this.isWanted) this.needAgain();
      this.changed.fire();
    } else if (update.type === 'loop') {
      const { loop } = update;
      const one = this.entries.find((entry) => entry.loop.loopId === loop.loopId && isIn(entry, { workspaceFolder }));
      if (one === undefined) this.needAgain();
      else {
        this.entries = inOrder(this.entries.map((entry) => (entry === one ? { ...one, loop } : entry)));
        this.isStale = this.reading !== undefined;
        this.changed.fire();
      }
    }
  }

  private needAgain(): void {
    this.isWanted = true;
    this.readSoon();
  }

  private readSoon(delayMs = SETTLE_MS): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.read(), delayMs);
  }

  /** Read the lists; asked again meanwhile, they are read once more. Never rejects: `failure` tells. */
  private read(): Promise<void> {
    if (this.reading !== undefined) this.isStale = true;
    this.reading ??= this.readAll().finally(() => {
      this.reading = undefined;
      this.changed.fire();
    });
    return this.reading;
  }

  private async readAll(): Promise<void> {
    try {
      do {
        this.isStale = false;
        const folders = vscode.workspace.workspaceFolders ?? [];
        const before = new Set(this.running.keys());
        const [lists, rounds, spend] = await Promise.all([
          Promise.all((folders.length > 1 ? folders : [undefined]).map((folder) => this.listOf(folder))),
          this.server.request('selfloop/run/list', { limit: 1 }),
          this.server.request('selfloop/spend/list', { days: 1 }),
        ]);
        this.entries = inOrder(lists.flat());
        this.spend = spend.rows;
        const running = rounds.running ?? [];
        for (const runId of before) if (!running.some((run) => run.runId === runId)) this.running.delete(runId);
        for (const run of running) this.running.set(run.runId, run);
        this.failure = undefined;
      } while (this.isStale);
    } catch (error) {
      this.failure = sentence(error);
      this.note(error);
    }
  }

  private async listOf(folder: vscode.WorkspaceFolder | undefined): Promise<LoopEntry[]> {
    const params = folder === undefined ? {} : { workspaceFolder: folder.uri.toString() };
    const { loops } = await this.server.request('selfloop/loop/list', params);
    return loops.map((loop) => (folder === undefined ? { loop } : { loop, folder }));
  }

  private forget(): void {
    this.entries = [];
    this.running.clear();
    this.recent.clear();
    this.failure = undefined;
    this.changed.fire();
  }

  private readonly note = (error: unknown): void =>
    this.server.output.warn(`Could not read the loops: ${sentence(error)}`);

  dispose(): void {
    clearTimeout(this.timer);
    for (const one of this.subscriptions) one.dispose();
    this.changed.dispose();
    this.ended.dispose();
  }
}

/** Tell whether a round, a gate's round or a row of spend belongs to a loop's folder. */
export function isIn({ folder }: LoopEntry, { workspaceFolder }: { workspaceFolder?: string }): boolean {
  return folder === undefined || workspaceFolder === undefined || folder.uri.toString() === workspaceFolder;
}

function keyOf({ loop, folder }: LoopEntry): string {
  return `${folder?.uri.toString() ?? ''} ${loop.loopId}`;
}

/** One of each round, newest first. What comes first of the same round is what is kept. */
function newest(reports: readonly RoundReport[]): RoundReport[] {
  const byId = new Map<string, RoundReport>();
  for (const report of reports) if (!byId.has(report.runId)) byId.set(report.runId, report);
  return [...byId.values()].sort((a, b) => (a.startedAt < b.startedAt ? 1 : -1)).slice(0, MOST_RUNS);
}

function inOrder(entries: readonly LoopEntry[]): LoopEntry[] {
  return [...entries].sort(
    (a, b) => Number(b.loop.enabled) - Number(a.loop.enabled) || a.loop.loopId.localeCompare(b.loop.loopId),
  );
}
