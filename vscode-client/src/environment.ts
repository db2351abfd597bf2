// The extension's own Python environment with the server in it.
//
//   <storage>/server/            the environment, made once, upgraded in place
//   <storage>/server.wanted      the user has asked for it: from then on it is mended and upgraded unasked
//   <storage>/server.lock        held by the one window that works on it
//   <storage>/server/stamp.json  written last: the sha256 of the wheel that is in it
//
// Invariant: an environment without a whole stamp is never used. It is taken away before anything is changed and
// written when all is done, so that a window that is killed in between leaves nothing that looks finished.

import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import * as path from 'node:path';
import { InstallError, explain } from './install_error';
import { isProgram } from './python';
import { run } from './processes';

const LOCK_STALE_MS = 30_000;
const LOCK_BEAT_MS = 5_000;
const LOCK_LOOK_MS = 300;
/** A lock that two windows took over at the same moment belongs to the last of them; after this long both know. */
const LOCK_SETTLE_MS = 150;

/** How the environment stands to the wheel that the package carries. */
export type Standing = 'absent' | 'broken' | 'outdated' | 'current';

/** What an installation needs and whom it tells. */
export interface Installing {
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
  /** Every line that Python and pip print. */
  onLine: (line: string) => void;
  /** What is being done, in some words for the user. */
  onStep: (text: string) => void;
}

/** The environment below a folder of the extension's own. */
export class Environment {
  readonly folder: string;
  private readonly lock: string;
  private readonly wanted: string;
  private readonly stamp: string;

  constructor(private readonly storage: string) {
    this.folder = path.join(storage, 'server');
    this.lock = path.join(storage, 'server.lock');
    this.wanted = path.join(storage, 'server.wanted');
    this.stamp = path.join(this.folder, 'stamp.json');
  }

  /** The environment's own Python. */
  get python(): string {
    return path.join(this.folder, 'bin', 'python');
  }

  /** Tell how the environment stands to a wheel. `broken`: it was wanted, and has to be made anew. */
  async standing(wheel: string): Promise<Standing> {
    const stamped = await readStamp(this.stamp);
    if (stamped !== undefined && isProgram(this.python)) {
      return stamped === (await digest(wheel)) ? 'current' : 'outdated';
    }
    return (await exists(this.wanted)) ? 'broken' : 'absent';
  }

  /**
   * Bring the environment to a wheel; the caller holds the lock.
   *
   * @param findPython only asked where the environment has to be made.
   * @throws InstallError with one sentence; nothing usable is left then.
   */
  async bring(wheel: string, findPython: () => Promise<string>, how: Installing): Promise<void> {
    const standing = await this.standing(wheel);
    if (standing === 'current') return;
    await writeFile(this.wanted, '');
    const wanted = await digest(wheel);
    if (standing !== 'outdated') {
      how.onStep('looking for Python');
      const python = await findPython();
      await rm(this.folder, { recursive: true, force: true });
      how.onStep('making an environment');
      await this.step('Making a Python environment', python, ['-I', '-m', 'venv', this.folder], how);
    }
    await rm(this.stamp, { force: true });
    const pip = [
      '-I',
      '-m',
      'pip',
      'install',
      '--disable-pip-version-check',
      '--no-input',
      '--progress-bar',
      'off',
      '--no-compile',
    ];
    how.onStep('fetching packages');
    await this.step('Installing the packages', this.python, [...pip, wheel], how);
    if (standing === 'outdated') {
      // pip leaves a package of the same version alone, whatever is in its wheel.
      await this.step(
        'Installing the server',
        this.python,
        [...pip, '--no-deps', '--no-index', '--force-reinstall', wheel],
        how,
      );
    }
    how.onStep('checking');
    const check = ['-I', '-c', 'import selfloop; print("selfloop", selfloop.__version__)'];
    await this.step('The first start of the server', this.python, check, how);
    const part = `${this.stamp}.part`;
    await writeFile(part, JSON.stringify({ wheel: wanted }));
    await rename(part, this.stamp);
  }

  /** Forget that the environment was asked for, and what was made of it. */
  async abandon(): Promise<void> {
    await rm(this.wanted, { force: true });
    await rm(this.folder, { recursive: true, force: true });
  }

  private async step(name: string, program: string, args: readonly string[], how: Installing): Promise<void> {
    how.onLine(`$ ${[program, ...args].join(' ')}`);
    const ran = await run(program, args, { cwd: this.storage, env: how.env, signal: how.signal, onLine: how.onLine });
    if (how.signal.aborted) throw new InstallError('cancelled', 'The installation was cancelled; nothing was kept.');
    if (ran.code !== 0) throw explain(name, ran.output);
  }

  /**
   * Do something while no other window works on the environment.
   *
   * @param onWait told once if another window does, before waiting for it.
   */
  async locked<T>(body: () => Promise<T>, signal: AbortSignal, onWait: () => void): Promise<T> {
    await mkdir(this.storage, { recursive: true });
    const token = `${process.pid} ${randomBytes(8).toString('hex')}`;
    let told = false;
    while (!(await this.take(token))) {
      if (signal.aborted) throw new InstallError('cancelled', 'The installation was cancelled; nothing was kept.');
      if (!told) onWait();
      told = true;
      await pause(LOCK_LOOK_MS);
    }
    const beat = setInterval(() => {
      const now = new Date();
      // A failed beat only makes the lock look old; the next one mends it.
      utimes(this.lock, now, now).catch(() => undefined);
    }, LOCK_BEAT_MS);
    try {
      return await body();
    } finally {
      clearInterval(beat);
      if ((await read(this.lock)) === token) await rm(this.lock, { force: true });
    }
  }

  /** Tell whether another window works on the environment now. */
  async isLocked(): Promise<boolean> {
    const held = await read(this.lock);
    return held !== undefined && !(await this.isStale(held));
  }

  private async take(token: string): Promise<boolean> {
    const held = await read(this.lock);
    const takeover = held !== undefined && (await this.isStale(held));
    if (takeover && (await read(this.lock)) === held) await rm(this.lock, { force: true });
    try {
      await writeFile(this.lock, token, { flag: 'wx' });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    }
    if (takeover) await pause(LOCK_SETTLE_MS);
    return (await read(this.lock)) === token;
  }

  /** The holder is gone, or has not moved for long (its process id may live in another container). */
  private async isStale(held: string): Promise<boolean> {
    const seen = await stat(this.lock).catch(() => undefined);
    if (seen === undefined) return false;
    const age = Date.now() - seen.mtimeMs;
    if (age > LOCK_STALE_MS) return true;
    const pid = Number(held.split(' ')[0]);
    // A lock that was made this very moment may not have its holder's name in it yet.
    if (!Number.isInteger(pid) || pid <= 0) return age > LOCK_BEAT_MS;
    try {
      process.kill(pid, 0);
      return false;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'ESRCH';
    }
  }
}

/** Return the wheel that a package carries; undefined: it carries none. */
export async function findWheel(folder: string): Promise<string | undefined> {
  const names = await readdir(folder).catch(() => []);
  const wheel = names
    .filter((name) => name.startsWith('selfloop-') && name.endsWith('.whl'))
    .sort()
    .at(-1);
  return wheel === undefined ? undefined : path.join(folder, wheel);
}

/** Tell whether one version, such as `0.9.2`, is older than another; what is no version is not. */
export function isOlder(version: string, than: string): boolean {
  const [left, right] = [version, than].map((one) => /^(\d+)\.(\d+)\.(\d+)/.exec(one)?.slice(1).map(Number));
  if (left === undefined || right === undefined) return false;
  const at = left.findIndex((part, index) => part !== right[index]);
  return at >= 0 && (left[at] ?? 0) < (right[at] ?? 0);
}

async function digest(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}

async function readStamp(file: string): Promise<string | undefined> {
  try {
    const stamp = JSON.parse((await read(file)) ?? '') as { wheel?: unknown };
    return typeof stamp.wheel === 'string' ? stamp.wheel : undefined;
  } catch {
    return undefined;
  }
}

/** Return a file's text; undefined where it cannot be read. */
async function read(file: string): Promise<string | undefined> {
  return readFile(file, 'utf8').catch(() => undefined);
}

function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
