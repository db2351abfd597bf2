// Wires the parts together, and nothing else. Activating only registers; the server is started afterwards.

import * as vscode from 'vscode';
import { ChatPanel } from './chat';
import { GateTree } from './gate_tree';
import { Gates } from './gates';
import { registerGenerations } from './generations';
import { Installation } from './install';
import { registerLoopCommands } from './loop_commands';
import { Loops } from './loops';
import { LoopsView } from './loops_view';
import { registerParticipant } from './participant';
import { Review } from './review';
import { registerRules } from './rules';
import { Pages } from './run_page';
import { Server } from './server';
import { Sessions } from './sessions';
import { SetUp } from './setup';
import { StatusBar } from './status';

export function activate(context: vscode.ExtensionContext): void {
  const output = vscode.window.createOutputChannel('Selfloop', { log: true });
  const version = String((context.extension.packageJSON as { version: string }).version);
  const installation = new Installation(context, output);
  const server = new Server(() => installation.locate(), output, version);
  const sessions = new Sessions(context, server);
  const gates = new Gates(server);
  const setUp = new SetUp(context, server, installation, sessions);
  const review = new Review(context, server, gates, sessions);
  const loops = new Loops(context.workspaceState, server);
  const pages = new Pages(context.extensionUri, server, gates, loops);
  context.subscriptions.push(
    output,
    installation,
    server,
    sessions,
    gates,
    setUp,
    review,
    loops,
    pages,
    // Before the chat, which takes every question that nobody else has taken.
    registerLoopCommands({ server, loops, pages, gates, review, sessions }),
    new LoopsView(context.workspaceState, loops, gates),
    new ChatPanel(context, server, sessions, gates, review, setUp),
    new GateTree(context, gates, review),
    new StatusBar(server, gates, sessions),
    registerRules(server),
    registerGenerations(server, pages),
    registerParticipant(context, server, sessions, gates),
    vscode.commands.registerCommand('selfloop.server.restart', () => server.restart()),
    vscode.commands.registerCommand('selfloop.server.output', () => output.show()),
  );
  // After this turn of the event loop, so that what the editor counts as activation stays registering.
  setTimeout(() => void server.start(), 0);
}
