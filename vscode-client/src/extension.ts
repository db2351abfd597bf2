// Wires the parts together, and nothing else. Activating only registers; the server is started afterwards.

import * as vscode from 'vscode';
import { ChatPanel } from './chat';
import { GateTree } from './gate_tree';
import { Gates } from './gates';
import { Installation } from './install';
import { registerParticipant } from './participant';
import { Review } from './review';
import { registerRules } from './rules';
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
  context.subscriptions.push(
    output,
    installation,
    server,
    sessions,
    gates,
    setUp,
    review,
    new ChatPanel(context, server, sessions, gates, review, setUp),
    new GateTree(context, gates, review),
    new StatusBar(server, gates, sessions),
    registerRules(server),
    registerParticipant(context, server, sessions, gates),
    vscode.commands.registerCommand('selfloop.server.restart', () => server.restart()),
    vscode.commands.registerCommand('selfloop.server.output', () => output.show()),
  );
  // After this turn of the event loop, so that what the editor counts as activation stays registering.
  setTimeout(() => void server.start(), 0);
}
