// The built-in offline model: a process of the server's own package, for trying Selfloop without a key.
//
// Invariant: it lives no longer than the extension: it ends with its standard input.

import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';

/** The model's name, as the server knows it. */
export const OFFLINE_MODEL = 'offline';

const PATIENCE_MS = 20_000;

/** Runs the offline model. */
export class OfflineModel {
  private child: ChildProcess | undefined;
  private starting: Promise<string> | undefined;

  /** Whether our own one runs. */
  get isRunning(): boolean {
    return this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  /**
   * Start it, unless it runs; return its base URL.
   *
   * @throws Error with one sentence for the user.
   */
  start(python: string, cwd: string, env: NodeJS.ProcessEnv, onLine: (line: string) => void): Promise<string> {
    if (this.starting === undefined || !this.isRunning) this.starting = this.spawned(python, cwd, env, onLine);
    return this.starting;
  }

  private spawned(
    python: string,
    cwd: string,
    env: NodeJS.ProcessEnv,
    onLine: (line: string) => void,
  ): Promise<string> {
    const child = spawn(python, ['-I', '-m', 'selfloop.offline'], { cwd, env, stdio: ['pipe', 'pipe', 'pipe'] });
    this.child = child;
    createInterface({ input: child.stderr }).on('line', onLine);
    return new Promise((resolve, reject) => {
      const failed = (why: string): void => {
        clearTimeout(timer);
        child.kill();
        reject(
          new Error(
            `The offline model could not be started (${why}), so the model was not changed; look at the output, or choose another model.`,
          ),
        );
      };
      const timer = setTimeout(() => failed('it did not answer in time'), PATIENCE_MS);
      child.on('error', (error) => failed(error.message));
      child.on('exit', (code) => failed(`it ended with code ${code ?? 'none'}`));
      child.stdin.on('error', () => undefined); // It is gone already; `exit` tells.
      const lines = createInterface({ input: child.stdout });
      lines.once('line', (line) => {
        clearTimeout(timer);
        lines.close();
        if (/^http:\/\/127\.0\.0\.1:\d+\/v1$/.test(line)) resolve(line);
        else failed('it said something else than its address');
      });
    });
  }

  dispose(): void {
    this.child?.stdin?.end();
    this.child?.kill();
    this.child = undefined;
  }
}
