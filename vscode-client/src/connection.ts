// The LSP connection: the only file that imports the language client.
//
// The server process is restarted by us only when it dies as a whole; a dead worker is the supervisor's business, and
// not noticed here.

import * as vscode from 'vscode';
import {
  CloseAction, ErrorAction, LanguageClient, ResponseError, Trace, TransportKind,
  type LanguageClientOptions, type Middleware,
} from 'vscode-languageclient/node';
import { UPDATE, type UpdateEnvelope } from './protocol';
import { RequestError, type Hooks, type Launch, type ServerState } from './server';

const MOST_DEATHS = 4;
const DEATHS_WITHIN_MS = 120_000;
/** Settings that are handed to the server, by the names that it knows them by. */
const SERVER_SETTINGS = ['model', 'baseUrl', 'contextTokens', 'maxOutputTokens', 'turnTotalTokens', 'turnCostUsd', 'isolation'];

interface Listener {
  update: (envelope: UpdateEnvelope) => void;
  state: (state: ServerState) => void;
}

/** Failures are told once, by us, as one sentence with what to do; the language client's own toasts only repeat them. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

/** One server process and the wire to it. */
export class Connection {
  private readonly client: LanguageClient;
  private readonly subscriptions: vscode.Disposable[] = [];
  private deaths: number[] = [];
  private stopping = false;
  private ready = false;

  constructor(launch: Launch, output: vscode.LogOutputChannel, private readonly version: string, hooks: Hooks, private readonly listener: Listener) {
    const options: LanguageClientOptions = {
      documentSelector: [{ scheme: 'file' }],
      outputChannel: output,
      initializationOptions: () => ({ trusted: vscode.workspace.isTrusted, settings: serverSettings() }),
      initializationFailedHandler: () => false,
      middleware: middleware(hooks),
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: () => this.closed(),
      },
    };
    // Not in the workspace: what lies there must not be able to stand in for a module or a program of the server's.
    const executable = { ...launch, transport: TransportKind.stdio, options: { cwd: homeFolder(), env: process.env } };
    this.client = new QuietClient('selfloop', 'Selfloop', { run: executable, debug: executable }, options);
  }

  /**
   * Start the process and wait for its answer to `initialize`.
   *
   * @throws Error with one sentence for the user.
   */
  async start(): Promise<void> {
    this.subscriptions.push(
      this.client.onNotification(UPDATE, (envelope: UpdateEnvelope) => this.listener.update(envelope)),
      vscode.workspace.onDidGrantWorkspaceTrust(() => this.configure()),
      vscode.workspace.onDidChangeConfiguration((event) => {
        if (SERVER_SETTINGS.some((name) => event.affectsConfiguration(`selfloop.${name}`))) this.configure();
      }),
    );
    try {
      await this.client.start();
    } catch (error) {
      throw new Error(`The server could not be started (${brief(error)}), so nothing runs; the output channel has what it said.`);
    }
    const found = this.client.initializeResult?.serverInfo;
    if (found?.name !== 'selfloop') {
      throw new Error(`The program that was started is ${found?.name ?? 'no Selfloop server'}; check the setting selfloop.server.path.`);
    }
    if (!fits(found.version, this.version)) {
      throw new Error(
        `The server has version ${found.version ?? '?'}, but this extension needs ${this.version}, so it was not used; ` +
          'upgrade it, or empty the setting selfloop.server.path to use the one that comes with the extension.',
      );
    }
    this.ready = true;
  }

  async request(method: string, params: object): Promise<unknown> {
    if (method === 'selfloop/model/setKey') return this.untraced(method, params);
    return this.client.sendRequest(method, params).catch(refused);
  }

  /** A key is never traced, whatever the user has set. */
  private async untraced(method: string, params: object): Promise<unknown> {
    await this.client.setTrace(Trace.Off);
    try {
      return await this.client.sendRequest(method, params).catch(refused);
    } finally {
      await this.client.setTrace(Trace.fromString(vscode.workspace.getConfiguration('selfloop').get('trace.server', 'off')));
    }
  }

  execute(command: string, argument: object): Promise<unknown> {
    return this.client.sendRequest('workspace/executeCommand', { command, arguments: [argument] }).catch(refused);
  }

  notify(method: string, params: object): void {
    if (this.client.isRunning()) void this.client.sendNotification(method, params);
  }

  private configure(): void {
    this.notify('workspace/didChangeConfiguration', {
      settings: { selfloop: { trusted: vscode.workspace.isTrusted, ...serverSettings() } },
    });
  }

  private closed(): { action: CloseAction; handled: boolean } {
    const now = Date.now();
    this.deaths = [...this.deaths.filter((at) => now - at < DEATHS_WITHIN_MS), now];
    if (this.stopping || !this.ready || this.deaths.length >= MOST_DEATHS) {
      if (!this.stopping && this.ready) {
        const reason = `The server ended ${this.deaths.length} times within two minutes, so it was not started again; look at the output, then restart it.`;
        this.listener.state({ kind: 'failed', reason });
      }
      return { action: CloseAction.DoNotRestart, handled: true };
    }
    this.listener.state({ kind: 'starting' });
    const running = this.client.onDidChangeState((event) => {
      if (event.newState !== 2) return;
      running.dispose();
      this.listener.state({ kind: 'running' });
    });
    return { action: CloseAction.Restart, handled: true };
  }

  /** End the process; never rejects. */
  async stop(): Promise<void> {
    this.stopping = true;
    for (const one of this.subscriptions.splice(0)) one.dispose();
    try {
      await this.client.dispose(5000);
    } catch {
      // It never came up, or did not answer in time and was killed: gone is what was wanted.
    }
  }
}

function middleware(hooks: Hooks): Middleware {
  return {
    executeCommand: async (command, args, next) => {
      const argument = (args[0] ?? {}) as Record<string, unknown>;
      if (await hooks.command?.(command, argument)) return undefined;
      return next(command, args);
    },
    workspace: {
      handleApplyEdit: async (params, next) => {
        const uris = [
          ...Object.keys(params.edit.changes ?? {}),
          ...(params.edit.documentChanges ?? []).flatMap((one) => ('textDocument' in one ? [one.textDocument.uri] : [])),
        ];
        const wanted = new Set(uris.map((uri) => vscode.Uri.parse(uri).toString()));
        const clean = vscode.workspace.textDocuments
          .filter((one) => wanted.has(one.uri.toString()) && !one.isDirty)
          .map((one) => one.uri);
        const result = await next(params, new vscode.CancellationTokenSource().token);
        // After the answer: the server compares the buffer with what it meant before anything else touches it.
        setTimeout(() => hooks.applied?.(clean), 0);
        return result;
      },
    },
  };
}

function serverSettings(): Record<string, unknown> {
  const configuration = vscode.workspace.getConfiguration('selfloop');
  const given = SERVER_SETTINGS.map((name) => [name, configuration.get(name)] as const);
  const set = given.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return { ...Object.fromEntries(set), gateDiagnostics: false };
}

function fits(found: string | undefined, wanted: string): boolean {
  const [major, minor] = wanted.split('.');
  return found !== undefined && found.split('.')[0] === major && found.split('.')[1] === minor;
}

function refused(error: unknown): never {
  if (error instanceof ResponseError) {
    const data = error.data as { reason?: string } | undefined;
    throw new RequestError(error.message, error.code, data?.reason);
  }
  throw error;
}

function brief(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  // What a pipe says whose other end is gone says nothing to a user.
  if (/EPIPE|ECONNRESET|Connection is closed|connection got disposed/i.test(text)) return 'the program ended at once';
  return text.split('\n')[0]?.replace(/\.$/, '') ?? 'no reason given';
}

function homeFolder(): string {
  return process.env['HOME'] ?? process.env['USERPROFILE'] ?? '/';
}
