// The commands of the loops: run, enable, disable, level, open, cancel, hand over, and those that a page's links run.
//
// Invariant: what a link brings along is data: an id that the server looks up, or a target that is checked before it is
// opened. More authority is never given here: the server opens a gate, and its page is where it is decided.

import * as vscode from 'vscode';
import type { Gates } from './gates';
import type { LoopEntry, Loops } from './loops';
import { isAbove, LEVELS, shortLevel } from './loop_words';
import type { LoopNode } from './loops_view';
import { openLink, openLocation } from './open_link';
import type { LoopInfo, RunRef } from './protocol';
import type { Review } from './review';
import { visible } from './review_model';
import type { Pages } from './run_page';
import { show, type Server } from './server';
import type { Sessions } from './sessions';
import { unlinked } from './trust_card';

/** What the commands need. */
export interface Parts {
  server: Server;
  loops: Loops;
  pages: Pages;
  gates: Gates;
  review: Review;
  sessions: Sessions;
}

/** Register the commands `selfloop.loops.*`, and take the code action *Hand to a loop*. */
export function registerLoopCommands(parts: Parts): vscode.Disposable {
  const { server, loops, pages } = parts;
  const command = <T>(
    name: string,
    run: (argument: T | undefined, ...more: unknown[]) => Promise<unknown>,
  ): vscode.Disposable =>
    vscode.commands.registerCommand(`selfloop.loops.${name}`, async (argument?: T, ...more: unknown[]) => {
      try {
        await run(argument, ...more);
      } catch (error) {
        show(error);
      }
    });
  const onLoop = (
    name: string,
    title: string,
    run: (entry: LoopEntry) => Promise<unknown>,
    fits?: Fits,
  ): vscode.Disposable =>
    command<LoopNode>(name, async (node) => {
      const entry = node?.type === 'loop' ? node.entry : await pickLoop(loops, title, fits);
      if (entry !== undefined) await run(entry);
    });
  const enable = (entry: LoopEntry, enabled: boolean): Promise<unknown> =>
    server.request('selfloop/loop/configure', { loopId: entry.loop.loopId, enabled, ...folderOf(entry) });
  takeHandOver(parts);
  return vscode.Disposable.from(
    onLoop('run', 'Run which loop now?', async (entry) => {
      await server.request('selfloop/run/start', { loopId: entry.loop.loopId, ...folderOf(entry) });
      await vscode.commands.executeCommand('selfloop.loops.focus');
    }),
    onLoop(
      'enable',
      'Enable which loop?',
      (entry) => enable(entry, true),
      ({ loop }) => !loop.enabled,
    ),
    onLoop(
      'disable',
      'Disable which loop?',
      (entry) => enable(entry, false),
      ({ loop }) => loop.enabled,
    ),
    onLoop('level', 'Change the level of which loop?', (entry) => changeLevel(parts, entry)),
    onLoop('file', 'Open the file of which loop?', async ({ loop }) => {
      if (loop.uri === undefined) throw new Error(`The loop ${loop.loopId} has no file, so nothing was opened.`);
      await vscode.commands.executeCommand('vscode.open', vscode.Uri.parse(loop.uri, true));
    }),
    command<LoopNode | string>('cancel', async (what) => cancel(parts, what)),
    command('refresh', () => loops.refresh()),
    command('spend', () => pages.spend()),
    command<LoopNode | string>('show', async (what) => {
      const runId = typeof what === 'string' ? what : runOf(loops, what);
      if (runId !== undefined) await pages.run(runId, loops.loopOf(runId)?.loopId);
    }),
    command<LoopNode | string>('review', async (what) => {
      const gateId = typeof what === 'string' ? what : what?.type === 'waiting' ? what.gate.gateId : undefined;
      if (gateId !== undefined) await reviewGate(parts, gateId);
    }),
    // What the links of a page run.
    command<string>('answer', async (gateId, optionId, digest) => {
      if (typeof gateId !== 'string' || typeof optionId !== 'string' || typeof digest !== 'string') return;
      await parts.gates.resolve(gateId, optionId, undefined, undefined, digest);
    }),
    command<string>('refuse', async (gateId, optionId, digest) => {
      if (typeof gateId !== 'string' || typeof optionId !== 'string' || typeof digest !== 'string') return;
      const why = await vscode.window.showInputBox({
        title: 'Why not?',
        prompt: 'It is remembered, and the next reflection reads it',
      });
      if (why !== undefined) await parts.gates.resolve(gateId, optionId, undefined, why || undefined, digest);
    }),
    command<string>('link', async (target) => target !== undefined && openLink(target)),
    command<string>('output', async (uri) => uri !== undefined && openLocation(uri, undefined)),
    command<string>('session', async (sessionId) => {
      if (sessionId === undefined) return;
      parts.sessions.open(sessionId);
      await vscode.commands.executeCommand('selfloop.panel.open');
    }),
  );
}

type Fits = (entry: LoopEntry) => boolean;

async function pickLoop(loops: Loops, title: string, fits: Fits = () => true): Promise<LoopEntry | undefined> {
  await loops.refresh();
  const rows = loops.entries.filter(fits).map((entry) => ({
    label: visible(entry.loop.loopId),
    description: visible(
      [shortLevel(entry.loop.level), entry.loop.enabled ? entry.loop.cadence : 'off', entry.folder?.name ?? '']
        .filter(Boolean)
        .join(' · '),
    ),
    detail: visible(entry.loop.intent),
    entry,
  }));
  if (rows.length === 0) throw new Error('There is no such loop here, so nothing was done.');
  return (await vscode.window.showQuickPick(rows, { title, matchOnDetail: true }))?.entry;
}

async function changeLevel({ server, pages }: Parts, entry: LoopEntry): Promise<void> {
  const { loop } = entry;
  const rows = LEVELS.map(({ level, short, name, meaning }) => ({
    label: `${level === loop.level ? '$(check)' : '$(blank)'} ${short} ${name}`,
    description: isAbove(level, loop.maxLevel)
      ? `above the highest that its file allows (${shortLevel(loop.maxLevel)})`
      : isAbove(level, loop.level)
        ? 'asks you at a gate first'
        : '',
    detail: meaning,
    level,
  }));
  const picked = await vscode.window.showQuickPick(rows, {
    title: `What may the loop ${visible(loop.loopId)} do?`,
    placeHolder: 'A higher level counts only once you have approved it',
  });
  if (picked === undefined) return;
  const allow = picked.level === 'L3-unattended' ? await pickAllowed(loop) : (loop.allow ?? []);
  const isAllowed = (loop.allow ?? []).includes(loop.action);
  if (allow === undefined || (picked.level === loop.level && allow.includes(loop.action) === isAllowed)) return;
  const { gateId } = await server.request('selfloop/loop/configure', {
    loopId: loop.loopId,
    level: picked.level,
    ...(picked.level === 'L3-unattended' ? { allow } : {}),
    ...folderOf(entry),
  });
  if (gateId !== undefined) await pages.question(gateId);
}

/** Ask what a loop may do by itself, and return its allow list; undefined: the user has left it as it is. */
async function pickAllowed({ loopId, action, allow = [] }: LoopInfo): Promise<string[] | undefined> {
  const others = allow.filter((one) => one !== action);
  const rows = [
    {
      label: `Carry out “${action}” by itself`,
      detail: 'Only what the checker has verified, outside protected paths, and where commands are jailed',
      allow: [...others, action],
    },
    { label: 'Go on asking', detail: 'Every result waits for you, as at L2', allow: others },
  ];
  const title = `May the loop ${visible(loopId)} act without you?`;
  return (await vscode.window.showQuickPick(rows, { title }))?.allow;
}

async function cancel({ server, loops }: Parts, what: LoopNode | string | undefined): Promise<void> {
  let runId = typeof what === 'string' ? what : runOf(loops, what);
  if (what === undefined) {
    await loops.refresh();
    const rows = [...loops.running.values()].map((run) => ({ label: visible(run.loopId), runId: run.runId }));
    if (rows.length === 0) throw new Error('No round of a loop runs, so nothing was cancelled.');
    runId =
      rows.length === 1
        ? rows[0]?.runId
        : (await vscode.window.showQuickPick(rows, { title: 'Cancel which round?' }))?.runId;
  }
  if (runId !== undefined) await server.request('selfloop/run/cancel', { runId });
}

function runOf(loops: Loops, node: LoopNode | undefined): string | undefined {
  switch (node?.type) {
    case 'loop':
      return loops.runOf(node.entry)?.runId;
    case 'running':
      return node.run.runId;
    case 'round':
      return node.report.runId;
    default:
      return undefined;
  }
}

async function reviewGate({ gates, review, pages }: Parts, gateId: string): Promise<void> {
  const { gate } = await gates.read(gateId);
  const type = gate.subject['type'];
  await (type === 'changes' || type === 'command' ? review.open(gateId) : pages.question(gateId));
}

function folderOf({ folder }: LoopEntry): { workspaceFolder?: string } {
  return folder === undefined ? {} : { workspaceFolder: folder.uri.toString() };
}

/** The light bulb's *Hand to a loop*: which one is chosen here, where a list can say what each is for. */
function takeHandOver({ server, loops }: Parts): void {
  const earlier = server.hooks.command;
  server.hooks.command = async (name, argument) => {
    if ((await earlier?.(name, argument)) === true) return true;
    if (name !== 'selfloop.ask' || argument['intent'] !== 'loop') return false;
    try {
      const known = typeof argument['loopId'] === 'string' ? argument['loopId'] : undefined;
      const loopId =
        known ?? (await pickLoop(loops, 'Hand this to which loop? One round of it begins at once.'))?.loop.loopId;
      if (loopId === undefined) return true;
      const { runId } = await server.execute<RunRef>(name, { ...argument, loopId });
      void vscode.window.setStatusBarMessage(`$(sync) Handed to ${unlinked(loopId)}.`, 6000);
      await vscode.commands.executeCommand('selfloop.loops.show', runId);
    } catch (error) {
      show(error);
    }
    return true;
  };
}
