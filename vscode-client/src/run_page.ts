// The pages of the loops in editor tabs: one for each round, one for each question, one for the spend.
//
// Invariant: a page has no script and may run only its own few commands; what it shows is the server's word, read anew
// whenever the server says that there is something new about it.

import * as vscode from 'vscode';
import type { Gates } from './gates';
import type { Loops } from './loops';
import { sentence, show, type Server } from './server';

const DAYS = 14;
const SETTLE_MS = 150;
const LINEAGE = 'lineage';

interface Page {
  panel: vscode.WebviewPanel;
  draw: () => Promise<string>;
  timer?: NodeJS.Timeout;
}

export class Pages implements vscode.Disposable {
  private readonly pages = new Map<string, Page>();
  private readonly subscriptions: vscode.Disposable[];

  constructor(
    private readonly extension: vscode.Uri,
    private readonly server: Server,
    private readonly gates: Gates,
    loops: Loops,
  ) {
    this.subscriptions = [
      loops.onDidChangeRun((runId) => this.drawSoon(`run/${runId}`)),
      loops.onDidChange(() => this.drawSoon('spend')),
      server.onUpdate(({ update }) => {
        if (update.type !== 'generation') return;
        for (const key of this.pages.keys()) if (key === LINEAGE || key.startsWith('generation/')) this.drawSoon(key);
      }),
      gates.onDidChange(() => {
        // Whether something of a round still waits; pages are few.
        for (const key of this.pages.keys()) if (/^(?:run|gate)\//.test(key)) this.drawSoon(key);
      }),
    ];
  }

  /** Show a round. */
  run(runId: string, loopId: string | undefined): Promise<void> {
    return this.show(`run/${runId}`, loopId === undefined ? 'Round' : `Round: ${loopId}`, async () => {
      const { runBody } = await import('./page_html');
      const read = await this.server.request('selfloop/run/read', { runId });
      const waiting = this.gates.open.filter((gate) => gate.runId === runId);
      return runBody(runId, read, waiting, new Date());
    });
  }

  /** Show what a loop asks for: an action, more authority, or that a new generation may serve. */
  question(gateId: string): Promise<void> {
    return this.show(`gate/${gateId}`, 'A Loop Asks', async () => {
      const { gate } = await this.server.request('selfloop/gate/read', { gateId });
      if (gate.subject['type'] === 'evolution') return (await import('./generation_page')).evolutionBody(gate);
      return (await import('./page_html')).questionBody(gate);
    });
  }

  /** Show the lineage of generations. */
  lineage(): Promise<void> {
    return this.show(LINEAGE, 'Selfloop: Generations', async () => {
      const { lineageBody } = await import('./generation_page');
      const [list, { svg }] = await Promise.all([
        this.server.request('selfloop/generation/list', {}),
        this.server.request('selfloop/generation/graph', {}),
      ]);
      return lineageBody(list, svg, new Date());
    });
  }

  /** Show one generation. */
  generation(number: number): Promise<void> {
    return this.show(`generation/${number}`, `Generation ${number}`, async () => {
      const { generationBody } = await import('./generation_page');
      return generationBody(await this.server.request('selfloop/generation/read', { number }), new Date());
    });
  }

  /** Show what was spent by loop and day. */
  spend(): Promise<void> {
    return this.show('spend', 'Selfloop: Spend', async () => {
      const { spendBody } = await import('./page_html');
      const { rows } = await this.server.request('selfloop/spend/list', { days: DAYS });
      return spendBody(rows, DAYS, new Date());
    });
  }

  private async show(key: string, title: string, draw: () => Promise<string>): Promise<void> {
    const known = this.pages.get(key);
    if (known !== undefined) {
      known.panel.reveal();
      return this.draw(key);
    }
    const { COMMANDS } = await import('./page_html');
    const root = vscode.Uri.joinPath(this.extension, 'dist', 'media');
    const panel = vscode.window.createWebviewPanel('selfloop.page', title, vscode.ViewColumn.Active, {
      enableScripts: false,
      enableFindWidget: true,
      enableCommandUris: Object.values(COMMANDS),
      localResourceRoots: [root],
    });
    const icon = (theme: string): vscode.Uri => vscode.Uri.joinPath(this.extension, 'media', `selfloop-${theme}.svg`);
    panel.iconPath = { light: icon('light'), dark: icon('dark') };
    this.pages.set(key, { panel, draw });
    panel.onDidDispose(() => {
      clearTimeout(this.pages.get(key)?.timer);
      this.pages.delete(key);
    });
    await this.draw(key);
  }

  private drawSoon(key: string): void {
    const page = this.pages.get(key);
    if (page === undefined) return;
    clearTimeout(page.timer);
    page.timer = setTimeout(() => void this.draw(key).catch(show), SETTLE_MS);
  }

  private async draw(key: string): Promise<void> {
    const page = this.pages.get(key);
    if (page === undefined) return;
    const { page: whole, escaped } = await import('./page_html');
    let body: string;
    try {
      body = await page.draw();
    } catch (error) {
      body = `<p class="bad">${escaped(sentence(error))}</p>`;
    }
    if (this.pages.get(key) !== page) return; // It was closed meanwhile.
    const { webview } = page.panel;
    const style = webview.asWebviewUri(vscode.Uri.joinPath(this.extension, 'dist', 'media', 'page.css'));
    const html = whole(page.panel.title, body, style.toString(), webview.cspSource);
    if (webview.html !== html) webview.html = html; // Setting it anew loses the place that is read.
  }

  dispose(): void {
    for (const one of this.subscriptions) one.dispose();
    for (const { panel } of [...this.pages.values()]) panel.dispose();
  }
}
