// Evolving, and going back: the commands, and a word to the user when another generation serves.
//
// Invariant: nothing here decides. What serves is the server's to say; a swap that nobody in this window has asked for
// is told all the same, with the way back.

import * as vscode from 'vscode';
import type { Pages } from './run_page';
import { show, type Server } from './server';

const LOOP = 'self-evolution';
const UNDO = 'Undo';
const CHANGED = 'What Changed';

export function registerGenerations(server: Server, pages: Pages): vscode.Disposable {
  const told = new Set<string>();
  const command = (name: string, run: (...args: unknown[]) => Promise<unknown>): vscode.Disposable =>
    vscode.commands.registerCommand(`selfloop.${name}`, (...args: unknown[]) => run(...args).catch(show));
  const activate = (number: number): Promise<unknown> => server.request('selfloop/generation/activate', { number });
  return vscode.Disposable.from(
    command('evolve', async () => {
      const { runId } = await server.request('selfloop/run/start', { loopId: LOOP });
      await pages.run(runId, LOOP);
    }),
    command('generations.show', () => pages.lineage()),
    command('generations.read', (number) => pages.generation(Number(number))),
    command('generations.activate', async (given) => {
      const number = given === undefined ? await pick(server) : Number(given);
      if (number === undefined) return;
      await activate(number);
    }),
    server.onUpdate(({ update }) => {
      if (update.type !== 'generation') return;
      const { number, state, restartId, reason } = update;
      // Every folder's stream tells of the same swap.
      const key = `${restartId ?? ''} ${state}`;
      if (told.has(key)) return;
      told.add(key);
      // A restart of the same generation is no news; who serves is only known before the swap.
      if (state === 'starting' && number === server.status?.generation) told.add(`${restartId ?? ''} active`);
      void tell(server, number, state, reason, activate).catch(show);
    }),
  );
}

async function tell(
  server: Server,
  number: number,
  state: string,
  reason: string | undefined,
  activate: (number: number) => Promise<unknown>,
): Promise<void> {
  if (state === 'rolled-back') {
    const why = reason === undefined ? '' : ` ${reason}`;
    void vscode.window.showWarningMessage(`Generation ${number} was rolled back; its parent serves again.${why}`);
  } else if (state === 'refused') {
    void vscode.window.showErrorMessage(reason ?? `Generation ${number} was not started; nothing was changed.`);
  } else if (state === 'active' && number > 0) {
    const { generations } = await server.request('selfloop/generation/list', {});
    const one = generations.find((each) => each.number === number);
    if (one === undefined || one.parent === undefined) return;
    const picked = await vscode.window.showInformationMessage(
      `Selfloop is generation ${number} now: ${one.summary}`,
      UNDO,
      CHANGED,
    );
    if (picked === UNDO) await activate(one.parent);
    else if (picked === CHANGED) await vscode.commands.executeCommand('selfloop.generations.read', number);
  }
}

async function pick(server: Server): Promise<number | undefined> {
  const { generations, active } = await server.request('selfloop/generation/list', {});
  const rows = generations
    .filter((one) => one.number !== active)
    .reverse()
    .map((one) => ({ label: `Generation ${one.number}`, description: one.state, detail: one.summary, one }));
  if (rows.length === 0) throw new Error('There is no other generation yet, so nothing was changed.');
  return (await vscode.window.showQuickPick(rows, { title: 'Which generation is to serve?' }))?.one.number;
}
