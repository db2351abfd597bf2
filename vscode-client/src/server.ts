// The server as the rest of the extension sees it: typed requests, numbered updates, and whether it runs.
//
// Invariant: this file is light. The language client itself lies in connection.ts, which is loaded when the server is
// first started, after activation.

import * as vscode from 'vscode';
import type { Connection } from './connection';
import { unlinked } from './trust_card';
import type { Methods, StatusResult, UpdateEnvelope } from './protocol';

/** Where the server is found: the program and what it is called with. */
export interface Launch {
  command: string;
  args: string[];
}

/** What the server is doing. `missing`: there is none to start; `failed`: it could not be started or kept up. */
export type ServerState =
  | { kind: 'off' }
  | { kind: 'missing'; reason: string }
  | { kind: 'starting' }
  | { kind: 'running' }
  | { kind: 'failed'; reason: string };

/** A request that was refused. `message` is the server's plain sentence, `reason` its `data.reason`. */
export class RequestError extends Error {
  constructor(
    message: string,
    readonly code: number,
    readonly reason: string | undefined,
  ) {
    super(message);
  }
}

/** What intercepts the server's side of things; filled in by whoever cares (review, chat). */
export interface Hooks {
  /** A command of the server's was invoked (lens, light bulb): return true when it was dealt with here. */
  command?: (name: string, argument: Record<string, unknown>) => Promise<boolean> | undefined;
  /** An edit of the server's was applied to these documents, which had no unsaved edits before. */
  applied?: (clean: readonly vscode.Uri[]) => void;
}

/** The one server of this window. */
export class Server implements vscode.Disposable {
  readonly hooks: Hooks = {};
  private readonly changed = new vscode.EventEmitter<ServerState>();
  private readonly updated = new vscode.EventEmitter<UpdateEnvelope>();
  private readonly refreshed = new vscode.EventEmitter<StatusResult>();
  readonly onDidChangeState = this.changed.event;
  /** Every `selfloop/update`, of all sessions, in the order in which they came. */
  readonly onUpdate = this.updated.event;
  /** A new answer to `selfloop/status`. */
  readonly onStatus = this.refreshed.event;
  private current: ServerState = { kind: 'off' };
  private connection: Connection | undefined;
  private beginning: Promise<void> | undefined;
  private asking: Promise<StatusResult> | undefined;
  /** The last answer to `selfloop/status`. */
  status: StatusResult | undefined;

  constructor(
    private readonly locate: () => Promise<Launch>,
    readonly output: vscode.LogOutputChannel,
    readonly version: string,
  ) {}

  get state(): ServerState {
    return this.current;
  }

  /** Start the server unless it runs; a start that is under way is joined. Never rejects: the state tells. */
  start(): Promise<void> {
    this.beginning ??= this.begin().finally(() => (this.beginning = undefined));
    return this.beginning;
  }

  private async begin(): Promise<void> {
    if (this.current.kind === 'running') return;
    this.become({ kind: 'starting' });
    let launch: Launch;
    try {
      launch = await this.locate();
    } catch (error) {
      this.become({ kind: 'missing', reason: sentence(error) });
      return;
    }
    try {
      const { Connection } = await import('./connection.js');
      this.connection = new Connection(launch, this.output, this.version, this.hooks, {
        update: (envelope) => this.updated.fire(envelope),
        state: (state) => this.become(state),
      });
      await this.connection.start();
      this.become({ kind: 'running' });
      this.refresh().catch((error: unknown) => {
        this.output.warn(`The server's state could not be read, and is asked for once more: ${sentence(error)}`);
        setTimeout(() => void this.refresh().catch(show), 2_000);
      });
    } catch (error) {
      const connection = this.connection;
      this.connection = undefined;
      await connection?.stop();
      this.become({ kind: 'failed', reason: sentence(error) });
    }
  }

  private become(state: ServerState): void {
    this.current = state;
    if (state.kind !== 'running') this.status = undefined;
    this.changed.fire(state);
  }

  /** Stop the server and start it anew: a new process, unlike `selfloop/restart`, which the editor does not notice. */
  async restart(): Promise<void> {
    await this.beginning;
    await this.stop();
    await this.start();
  }

  private async stop(): Promise<void> {
    const connection = this.connection;
    this.connection = undefined;
    await connection?.stop();
    this.become({ kind: 'off' });
  }

  /**
   * Send a request, once the server runs.
   *
   * @throws RequestError where the server refuses; its message is one plain sentence for the user.
   */
  async request<M extends keyof Methods>(method: M, params: Methods[M]['params']): Promise<Methods[M]['result']> {
    if (this.beginning !== undefined) await this.beginning;
    if (this.connection === undefined) {
      const why = 'reason' in this.current ? this.current.reason : 'The server is not running.';
      throw new RequestError(`${why} Nothing was done.`, -32803, 'server');
    }
    return (await this.connection.request(method, params)) as Methods[M]['result'];
  }

  /** Send a command of the server's that is no method, such as `selfloop.ask`. */
  async execute<T>(command: string, argument: object): Promise<T> {
    if (this.beginning !== undefined) await this.beginning;
    if (this.connection === undefined) throw new RequestError('The server is not running. Nothing was done.', -32803, 'server');
    return (await this.connection.execute(command, argument)) as T;
  }

  /** Send a notification; dropped while no server runs. */
  notify(method: string, params: object): void {
    this.connection?.notify(method, params);
  }

  /** Ask for `selfloop/status` and tell it to all who listen; asked again while under way, it is asked once. */
  refresh(): Promise<StatusResult> {
    this.asking ??= this.request('selfloop/status', {})
      .then((status) => {
        this.status = status;
        this.refreshed.fire(status);
        return status;
      })
      .finally(() => (this.asking = undefined));
    return this.asking;
  }

  dispose(): Promise<void> {
    this.changed.dispose();
    const connection = this.connection;
    this.connection = undefined;
    return connection?.stop() ?? Promise.resolve();
  }
}

/** Return an error's plain sentence. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Show a refusal to the user as the sentence that it is: text of others in it makes no links, which could be commands. */
export function show(error: unknown): void {
  void vscode.window.showErrorMessage(unlinked(sentence(error)));
}
