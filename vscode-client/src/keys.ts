// The providers' keys: each in the editor's SecretStorage under the origin that it was entered for.
//
// Invariant: a key goes from the input box to SecretStorage and from there to the server by `selfloop/model/setKey`,
// and nowhere else: no setting, log, trace, memento or web view ever holds one. The server's supervisor keeps keys in
// memory and tells every new worker of them; only a new server process has to be told by us.

import * as vscode from 'vscode';
import { originOf } from './models';
import type { Server } from './server';

const PREFIX = 'key:';
const INDEX = 'keys.origins';

/** The keys that the user has entered. */
export class Keys implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  /** A key was set or forgotten, here or in another window. */
  readonly onDidChange = this.changed.event;
  private readonly subscriptions: vscode.Disposable[];

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly server: Server,
  ) {
    this.subscriptions = [
      context.secrets.onDidChange((event) => {
        if (event.key.startsWith(PREFIX)) void this.changedOutside(event.key.slice(PREFIX.length));
      }),
    ];
  }

  /** The origins that a key was entered for. */
  get origins(): readonly string[] {
    return this.context.globalState.get<string[]>(INDEX, []);
  }

  /** Tell whether a key was entered for an origin. */
  has(origin: string): boolean {
    return this.origins.includes(origin);
  }

  /** Ask for a key in a password box, and keep it; returns false when the user thought better of it. */
  async ask(origin: string): Promise<boolean> {
    const host = new URL(origin).host;
    const key = await vscode.window.showInputBox({
      title: `Key for ${host}`,
      prompt: `Kept in the editor's secret storage, and sent to ${origin} only.`,
      password: true,
      ignoreFocusOut: true,
      validateInput: (text) =>
        /^[\x21-\x7e]*$/.test(text.trim()) ? undefined : 'A key has only plain letters, digits and signs.',
    });
    if (!key?.trim()) return false;
    await this.context.secrets.store(PREFIX + origin, key.trim());
    await this.note(origin, true);
    await this.tell(origin);
    return true;
  }

  /** Forget a key, here and in the server. */
  async forget(origin: string): Promise<void> {
    await this.context.secrets.delete(PREFIX + origin);
    await this.note(origin, false);
    await this.tell(origin);
  }

  /** Tell a server that has just been started every key. */
  async tellAll(): Promise<void> {
    for (const origin of this.origins) await this.tell(origin);
  }

  private async tell(origin: string): Promise<void> {
    if (this.server.state.kind !== 'running') return;
    const key = await this.context.secrets.get(PREFIX + origin);
    // Every origin was checked when its key was entered; this holds what lies in the storage to the same.
    if (originOf(origin) !== origin) return;
    await this.server.request('selfloop/model/setKey', { origin, key: key ?? '' });
  }

  private async changedOutside(origin: string): Promise<void> {
    try {
      const there = (await this.context.secrets.get(PREFIX + origin)) !== undefined;
      if (there !== this.has(origin)) await this.note(origin, there);
      await this.tell(origin);
    } catch (error) {
      this.server.output.warn(`The key for ${origin} could not be given to the server: ${String(error)}`);
    }
  }

  private async note(origin: string, there: boolean): Promise<void> {
    const others = this.origins.filter((one) => one !== origin);
    await this.context.globalState.update(INDEX, there ? [...others, origin] : others);
    this.changed.fire();
  }

  dispose(): void {
    for (const one of this.subscriptions) one.dispose();
    this.changed.dispose();
  }
}
