// Finds a Python from which the server's own environment can be made.
//
// Invariant: nothing that lies in a workspace folder is run or looked at as a program: a repository could plant it. The
// test is made on the name and on what the name leads to, and on where the found Python says that it lives.

import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import * as path from 'node:path';
import { InstallError } from './install_error';
import { run } from './processes';

const NAMES = ['python3.13', 'python3.12', 'python3.11', 'python3', 'python'];
const LEAST: readonly [number, number] = [3, 11];
const PROBE_MS = 15_000;
const PROBE =
  'import sys, json, importlib.util as u; print(json.dumps({"executable": sys.executable, "version": ' +
  'list(sys.version_info[:3]), "prefixes": [sys.prefix, sys.base_prefix], ' +
  '"venv": all(u.find_spec(name) for name in ("venv", "ensurepip"))}))';

/** What a Python says of itself. */
export interface Probed {
  executable: string;
  version: readonly number[];
  prefixes: readonly string[];
  /** Whether it can make an environment with pip in it. */
  venv: boolean;
}

/** Tell whether a path lies in one of some folders, by its name or by what its name leads to. */
export function within(file: string, folders: readonly string[]): boolean {
  const names = [path.resolve(file), real(file)];
  return folders.some((folder) =>
    [path.resolve(folder), real(folder)].some((root) =>
      names.some((name) => {
        const way = path.relative(root, name);
        return way === '' || (way !== '..' && !way.startsWith(`..${path.sep}`) && !path.isAbsolute(way));
      }),
    ),
  );
}

/** Return the folders of a PATH that programs may be taken from: absolute, and outside the workspace. */
export function safeFolders(searchPath: string | undefined, folders: readonly string[]): string[] {
  const entries = (searchPath ?? '').split(path.delimiter);
  return entries.filter((entry) => path.isAbsolute(entry) && !within(entry, folders));
}

/** Return the programs on the PATH that may be a Python, the most wanted first. */
export function candidates(searchPath: string | undefined, folders: readonly string[]): string[] {
  const safe = safeFolders(searchPath, folders);
  const found = NAMES.flatMap((name) => safe.map((folder) => path.join(folder, name)));
  return [...new Set(found)].filter((file) => isProgram(file) && !within(file, folders));
}

/** Return the environment for our own Pythons: none of the variables that would change what Python or pip loads. */
export function cleanEnvironment(env: NodeJS.ProcessEnv, folders: readonly string[]): NodeJS.ProcessEnv {
  const unwanted = new Set(['__PYVENV_LAUNCHER__', 'VIRTUAL_ENV', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_ROOT', 'PIP_USER']);
  const kept = Object.entries(env).filter(([name]) => !name.startsWith('PYTHON') && !unwanted.has(name));
  return { ...Object.fromEntries(kept), PATH: safeFolders(env['PATH'], folders).join(path.delimiter) };
}

/** Read what the probe printed; undefined: it is no Python, or a broken one. */
export function parseProbe(output: string): Probed | undefined {
  const line = output.split('\n').find((one) => one.startsWith('{'));
  try {
    const said = JSON.parse(line ?? '') as Probed;
    const whole = typeof said.executable === 'string' && Array.isArray(said.version) && Array.isArray(said.prefixes);
    return whole && said.executable ? said : undefined;
  } catch {
    return undefined;
  }
}

/** Tell whether a version, such as [3, 12, 1], is new enough. */
export function isEnough(version: readonly number[]): boolean {
  const [major = 0, minor = 0] = version;
  return major > LEAST[0] || (major === LEAST[0] && minor >= LEAST[1]);
}

/** Return a setting's path with `~` put out, or undefined where it is not absolute. */
export function absolute(given: string): string | undefined {
  const home = homedir();
  const full = given === '~' || given.startsWith('~/') ? path.join(home, given.slice(1)) : given;
  return path.isAbsolute(full) ? path.normalize(full) : undefined;
}

/** Tell whether a path is a file that can be executed. */
export function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** Where to look, and with what. */
export interface Search {
  /** The setting; empty: look on the PATH. */
  configured: string;
  env: NodeJS.ProcessEnv;
  /** The workspace folders' paths. */
  folders: readonly string[];
  /** A folder of ours to run in. */
  cwd: string;
  signal?: AbortSignal;
}

/**
 * Find a Python that is new enough and can make an environment; return its own path.
 *
 * @throws InstallError with one sentence on what is missing and what to do.
 */
export async function findPython(search: Search): Promise<string> {
  const { configured, folders } = search;
  if (configured) {
    const given = absolute(configured);
    if (given === undefined || !isProgram(given)) {
      throw new InstallError(
        'python',
        `The setting selfloop.server.python is ${configured}, which is no program that can be run, so nothing was ` +
          'installed; choose a Python 3.11 or newer by its full path.',
      );
    }
    if (within(given, folders)) {
      throw new InstallError(
        'python',
        `The Python ${configured} lies in the workspace, where a repository could have put it, so it was not run; ` +
          'choose one outside.',
      );
    }
    return judged(given, await probe(given, search), folders);
  }
  const seen: Probed[] = [];
  for (const file of candidates(search.env['PATH'], folders)) {
    const probed = await probe(file, search);
    if (search.signal?.aborted)
      throw new InstallError('cancelled', 'The installation was cancelled; nothing was kept.');
    if (probed === undefined || probed.prefixes.some((one) => within(one, folders))) continue;
    if (isEnough(probed.version) && probed.venv) return probed.executable;
    seen.push(probed);
  }
  const bare = seen.find((one) => isEnough(one.version));
  if (bare !== undefined) throw new InstallError('venv', withoutVenv(bare));
  const newest = seen.map((one) => one.version).sort((a, b) => (b[1] ?? 0) - (a[1] ?? 0))[0];
  throw new InstallError(
    'python',
    newest === undefined
      ? 'No Python was found on the PATH, so the server was not installed; install Python 3.11 or newer, or choose one.'
      : `The newest Python on the PATH is ${newest.join('.')}, and the server needs 3.11 or newer, so it was not ` +
          'installed; install a newer one, or choose one.',
  );
}

function judged(file: string, probed: Probed | undefined, folders: readonly string[]): string {
  if (probed === undefined) {
    throw new InstallError(
      'python',
      `${file} does not answer as a Python does, so nothing was installed; choose another.`,
    );
  }
  if (probed.prefixes.some((one) => within(one, folders))) {
    throw new InstallError(
      'python',
      `${file} takes its library from the workspace, so it is not used; choose another.`,
    );
  }
  if (!isEnough(probed.version)) {
    const version = probed.version.join('.');
    throw new InstallError(
      'python',
      `${file} is Python ${version}, and the server needs 3.11 or newer; choose another.`,
    );
  }
  if (!probed.venv) throw new InstallError('venv', withoutVenv(probed));
  return probed.executable;
}

function withoutVenv(probed: Probed): string {
  const minor = probed.version.slice(0, 2).join('.');
  return (
    `Python ${minor} (${probed.executable}) has no module that makes environments, so the server was not installed; ` +
    `on Debian and Ubuntu run "sudo apt install python${minor}-venv", then try again.`
  );
}

async function probe(file: string, search: Search): Promise<Probed | undefined> {
  const ran = await run(file, ['-I', '-c', PROBE], {
    cwd: search.cwd,
    env: cleanEnvironment(search.env, search.folders),
    timeoutMs: PROBE_MS,
    ...(search.signal ? { signal: search.signal } : {}),
  });
  return ran.code === 0 ? parseProbe(ran.output) : undefined;
}

function real(file: string): string {
  const full = path.resolve(file);
  try {
    return realpathSync(full);
  } catch {
    // What is not there leads where its folder leads.
    const parent = path.dirname(full);
    return parent === full ? full : path.join(real(parent), path.basename(full));
  }
}
