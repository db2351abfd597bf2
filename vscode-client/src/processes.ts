// Runs a program to its end, in a process group of its own, so that cancelling takes everything that it has started.
//
// Invariant: when `run` settles, nothing of the program lives on. It knows no editor.

import { spawn } from 'node:child_process';

const KEPT_CHARACTERS = 64_000;
const GRACE_MS = 2_000;

/** How a program is run. */
export interface RunOptions {
  cwd: string;
  env: NodeJS.ProcessEnv;
  /** Aborted: the whole process group is ended. */
  signal?: AbortSignal;
  timeoutMs?: number;
  onLine?: (line: string) => void;
}

/** What came of a program. */
export interface Ran {
  /** null: it was killed, or could not be started. */
  code: number | null;
  /** The end of what it wrote, on both streams. */
  output: string;
}

/** Run a program to its end; never rejects. */
export function run(command: string, args: readonly string[], options: RunOptions): Promise<Ran> {
  return new Promise((resolve) => {
    if (options.signal?.aborted) {
      resolve({ code: null, output: '' });
      return;
    }
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: options.env,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    const heard = (text: string): void => {
      output = (output + text).slice(-KEPT_CHARACTERS);
    };
    for (const stream of [child.stdout, child.stderr]) {
      let rest = '';
      stream.setEncoding('utf8');
      stream.on('data', (text: string) => {
        heard(text);
        const lines = (rest + text).split(/\r?\n|\r/);
        rest = lines.pop() ?? '';
        for (const line of lines) if (line.trim()) options.onLine?.(line);
      });
      stream.on('end', () => {
        if (rest.trim()) options.onLine?.(rest);
      });
    }
    const end = (): void => endGroup(child.pid);
    const timer = options.timeoutMs === undefined ? undefined : setTimeout(end, options.timeoutMs);
    options.signal?.addEventListener('abort', end, { once: true });
    const settle = (code: number | null): void => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', end);
      resolve({ code, output });
    };
    child.on('error', (error) => {
      heard(error.message);
      settle(null);
    });
    child.on('close', (code) => settle(code));
  });
}

/** End a process group: politely, and after a grace for good. */
export function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  signalGroup(pid, 'SIGTERM');
  setTimeout(() => signalGroup(pid, 'SIGKILL'), GRACE_MS).unref();
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // ESRCH: nobody of the group is left, which is what was wanted; macOS says EPERM where only a zombie is.
    if (!['ESRCH', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
