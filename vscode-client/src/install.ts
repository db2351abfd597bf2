// Where the server comes from: the program that a machine-scope setting names, or the extension's own environment.
//
// Invariant: the first installation is the user's click; after it, an upgrade of the extension upgrades the server by
// itself. No program that lies in a workspace folder is ever run.

import { dirname, join } from 'node:path';
import { mkdirSync, readFileSync, realpathSync } from 'node:fs';
import * as vscode from 'vscode';
import { Environment, findWheel } from './environment';
import { InstallError } from './install_error';
import { absolute, cleanEnvironment, findPython, isProgram, safeFolders, within } from './python';
import type { Launch } from './server';

const NAMES_OF_PYTHON = ['python', 'python3', 'python3.13', 'python3.12', 'python3.11'];

/** Finds the server, and installs it. */
export class Installation implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  /** Another step of an installation, or its end. */
  readonly onDidChange = this.changed.event;
  private readonly storage: string;
  private readonly environment: Environment;
  private underWay: Promise<void> | undefined;
  private program: string | undefined;
  /** What is being installed right now, in some words; undefined: nothing is. */
  step: string | undefined;
  /** Why the last look or installation failed. */
  trouble: InstallError | undefined;
  /** The environment was brought to another wheel since the window began: who still serves the old one must restart. */
  upgraded = false;

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly output: vscode.LogOutputChannel,
  ) {
    this.storage = context.globalStorageUri.fsPath;
    this.environment = new Environment(this.storage);
  }

  /** Whether the server is our own environment's, and not a setting's. */
  get isOwn(): boolean {
    return setting('server.path') === '';
  }

  /**
   * Find the server; an environment that the user once asked for is upgraded or mended first.
   *
   * @throws InstallError with one sentence for the user.
   */
  async locate(): Promise<Launch> {
    try {
      const launch = this.isOwn ? await this.own() : this.configured();
      this.trouble = undefined;
      return launch;
    } catch (error) {
      this.trouble = asTrouble(error);
      throw this.trouble;
    } finally {
      this.changed.fire();
    }
  }

  /** The Python that the server runs on, for what comes with the server; undefined: it cannot be told. */
  get python(): string | undefined {
    if (this.isOwn) return isProgram(this.environment.python) ? this.environment.python : undefined;
    if (this.program === undefined) return undefined;
    const beside = dirname(realpathSync(this.program));
    const found = NAMES_OF_PYTHON.map((name) => join(beside, name)).find(isProgram) ?? interpreter(this.program);
    return found !== undefined && !within(found, workspaceFolders()) ? found : undefined;
  }

  /** The environment in which programs of ours are run. */
  get variables(): NodeJS.ProcessEnv {
    return cleanEnvironment(process.env, workspaceFolders());
  }

  /** A folder of ours to run programs in; it exists. */
  get folder(): string {
    mkdirSync(this.storage, { recursive: true });
    return this.storage;
  }

  /**
   * Install the server, because the user asked for it; an installation that is under way is joined.
   *
   * @throws InstallError with one sentence for the user.
   */
  async install(): Promise<void> {
    const wheel = await this.wheel();
    this.underWay ??= this.bring(wheel, 'Installing the Selfloop server').finally(() => (this.underWay = undefined));
    await this.underWay;
  }

  private configured(): Launch {
    const given = setting('server.path');
    const program = absolute(given);
    const where = `The setting selfloop.server.path is ${given}`;
    if (program === undefined) {
      throw new InstallError(
        'setting',
        `${where}, which is no full path, so no server was started; write the full path, or empty it.`,
      );
    }
    if (!isProgram(program)) {
      throw new InstallError(
        'setting',
        `${where}, and there is no program that can be run, so no server was started; mend or empty it.`,
      );
    }
    if (within(program, workspaceFolders())) {
      throw new InstallError(
        'setting',
        `${where}, which lies in the workspace, where a repository could have put it, so it was not started; ` +
          'install the server outside the workspace.',
      );
    }
    this.program = program;
    return { command: program, args: ['serve'] };
  }

  private async own(): Promise<Launch> {
    const wheel = await this.wheel();
    if (this.underWay !== undefined) await this.underWay;
    let standing = await this.environment.standing(wheel);
    const busy = standing !== 'current' && (await this.environment.isLocked());
    if (standing === 'absent' && !busy) {
      throw new InstallError(
        'absent',
        'The server is not installed yet, so nothing runs; installing it takes about a minute.',
      );
    }
    if (standing !== 'current') {
      const title = standing === 'outdated' ? 'Upgrading the Selfloop server' : 'Mending the Selfloop server';
      this.underWay ??= this.bring(wheel, title, standing === 'absent').finally(() => (this.underWay = undefined));
      await this.underWay;
      standing = await this.environment.standing(wheel);
    }
    if (standing !== 'current') {
      throw new InstallError(
        'absent',
        'The server is not installed yet, so nothing runs; installing it takes about a minute.',
      );
    }
    return { command: this.environment.python, args: ['-I', '-m', 'selfloop', 'serve'] };
  }

  private async wheel(): Promise<string> {
    if (process.platform === 'win32') {
      throw new InstallError(
        'platform',
        'The server runs on Linux and macOS, so nothing runs here; on Windows reopen the folder in WSL.',
      );
    }
    const wheel = await findWheel(vscode.Uri.joinPath(this.context.extensionUri, 'server').fsPath);
    if (wheel === undefined) {
      throw new InstallError(
        'wheel',
        'This copy of the extension carries no server, so nothing runs; install Selfloop with pip and put the path ' +
          'of its program into the setting selfloop.server.path.',
      );
    }
    return wheel;
  }

  /** Bring the environment to the wheel, with a progress notification that can be cancelled. */
  private async bring(wheel: string, title: string, onlyWait = false): Promise<void> {
    const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
    try {
      await vscode.window.withProgress(options, async (progress, token) => {
        const abort = new AbortController();
        const listening = token.onCancellationRequested(() => abort.abort());
        const tell = (text: string): void => {
          this.step = text;
          progress.report({ message: text });
          this.changed.fire();
        };
        try {
          const waiting = (): void => tell('another window is at it');
          await this.environment.locked(() => this.work(wheel, abort.signal, tell, onlyWait), abort.signal, waiting);
        } finally {
          listening.dispose();
        }
      });
      this.trouble = undefined;
    } catch (error) {
      this.trouble = asTrouble(error);
      throw this.trouble;
    } finally {
      this.step = undefined;
      this.changed.fire();
    }
  }

  private async work(
    wheel: string,
    signal: AbortSignal,
    tell: (text: string) => void,
    onlyWait: boolean,
  ): Promise<void> {
    const before = await this.environment.standing(wheel);
    // The other window has finished it, or has given it up: then the user is asked again.
    if (before === 'current' || (onlyWait && before === 'absent')) return;
    const folders = workspaceFolders();
    const env = this.variables;
    const configured = setting('server.python');
    const how = { env, signal, onLine: (line: string) => this.heard(line, tell), onStep: tell };
    this.output.info(`${before === 'outdated' ? 'Upgrading' : 'Installing'} the server from ${wheel}`);
    try {
      await this.environment.bring(
        wheel,
        () => findPython({ configured, env: process.env, folders, cwd: this.storage, signal }),
        how,
      );
    } catch (error) {
      const trouble = asTrouble(error);
      this.output.error(trouble.message);
      // What the user has cancelled is not begun again by the next window.
      if (trouble.trouble === 'cancelled') await this.environment.abandon();
      throw trouble;
    }
    this.output.info('The server is installed.');
    this.upgraded = before === 'outdated';
  }

  private heard(line: string, tell: (text: string) => void): void {
    this.output.info(line);
    const collected = /^\s*(?:Collecting|Downloading|Using cached) ([\w.-]+?)(?:-[\d.]+[-.]|[\s<>=!~(]|$)/.exec(
      line,
    )?.[1];
    if (collected !== undefined) tell(`fetching ${collected}`);
    else if (line.startsWith('Installing collected packages')) tell('installing packages');
  }

  dispose(): void {
    this.changed.dispose();
  }
}

/** Return the paths of the workspace folders that lie on this machine. */
export function workspaceFolders(): string[] {
  const folders = vscode.workspace.workspaceFolders ?? [];
  return folders.filter((folder) => folder.uri.scheme === 'file').map((folder) => folder.uri.fsPath);
}

/** Return the folders of the PATH that programs may be taken from. */
export function programFolders(): string[] {
  return safeFolders(process.env['PATH'], workspaceFolders());
}

function setting(name: string): string {
  return vscode.workspace.getConfiguration('selfloop').get<string>(name, '').trim();
}

/** Return the Python that a script's first line names. */
function interpreter(script: string): string | undefined {
  const first = readFileSync(script, 'latin1').slice(0, 500).split('\n')[0] ?? '';
  const named = /^#!\s*(\/\S*python[\d.]*)\s*$/.exec(first)?.[1];
  return named !== undefined && isProgram(named) ? named : undefined;
}

function asTrouble(error: unknown): InstallError {
  if (error instanceof InstallError) return error;
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new InstallError(
      'disk',
      'The disk is full, so the server was not installed; make about 600 MB free, then try again.',
    );
  }
  const text = error instanceof Error ? error.message : String(error);
  return new InstallError(
    'failed',
    `The server could not be installed (${text}), so nothing runs; the output channel has more.`,
  );
}
